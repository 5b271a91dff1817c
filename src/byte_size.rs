//! Sizes in bytes as text, such as `3 GB`.

/// The units, by powers of ten and of two.
const UNITS: [(&str, u64); 7] = [
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a size such as `3 GB` or `1.5GiB`, in bytes; `None` if it is not one, or less than a byte.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let bytes = number.trim().parse::<f64>().ok()? * *factor as f64;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

/// Writes a size in the largest unit of which it is a whole number.
pub(crate) fn write(bytes: u64) -> String {
    let whole = UNITS.iter().filter(|(_, factor)| bytes.is_multiple_of(*factor)).max_by_key(|(_, factor)| factor);
    whole.map_or_else(|| format!("{bytes} B"), |(unit, factor)| format!("{} {unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, bytes) in [("3 GB", 3_000_000_000), ("1.5GiB", 3 << 29), ("512 mib", 512 << 20), ("7 B", 7)] {
            assert_eq!(parse(text), Some(bytes));
            assert_eq!(parse(&write(bytes)), Some(bytes));
        }
        assert_eq!(write(3_000_000_000), "3 GB");
        assert_eq!(write(512 << 20), "512 MiB");
        for text in ["", "3", "GB", "-1 GB", "3 GBs", "nan GB", "1e300 GB", "0 GB"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
