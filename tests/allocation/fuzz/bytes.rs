//! Mutations of files as bytes: flips, cuts, splices, and lengths in the binary formats.

use super::random::Random;

/// Numbers at which lengths and offsets go wrong.
pub const EXTREMES: [u64; 20] = [
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 33,
    1 << 40,
    1 << 53,
    (1 << 62) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// One mutation of a file that has no structure, or whose structure does not matter.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len());
    let longest = if random.one_in(4) { bytes.len() } else { 16 };
    let length = 1 + random.below(longest);
    let end = (at + length).min(bytes.len());
    match random.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        3 => {
            let from = random.below(other.len());
            let to = (from + length).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        4 => {
            let width = *random.pick(&[1, 2, 4, 8]);
            let value = *random.pick(&EXTREMES);
            let little = random.one_in(2);
            let number = if little { value.to_le_bytes() } else { value.to_be_bytes() };
            let number = if little { &number[..width] } else { &number[8 - width..] };
            bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = *new);
        }
        5 => {
            let noise: Vec<u8> = (0..length.min(64)).map(|_| random.next() as u8).collect();
            bytes.splice(at..at, noise);
        }
        _ => {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

/// One field of a message in protocol buffers' wire format.
enum Field {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

/// One mutation within a message in protocol buffers' wire format, whose lengths all stay right.
pub fn mutate_message(random: &mut Random, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut fields = fields(bytes)?;
    if fields.is_empty() {
        return None;
    }
    let at = random.below(fields.len());
    let goes_deeper = !random.one_in(5);
    if let Field::Bytes(inner) = &fields[at].1
        && goes_deeper
        && let Some(new) = mutate_message(random, inner)
    {
        fields[at].1 = Field::Bytes(new);
        return Some(written(&fields));
    }
    match (random.below(6), &mut fields[at]) {
        (0, _) => drop(fields.remove(at)),
        (1, (_, field)) => {
            let copy = match field {
                Field::Varint(value) => Field::Varint(*value),
                Field::Fixed(bytes) => Field::Fixed(bytes.clone()),
                Field::Bytes(bytes) => Field::Bytes(bytes.clone()),
            };
            let number = fields[at].0;
            let place = random.below(fields.len() + 1);
            fields.insert(place, (number, copy));
        }
        (2, (number, _)) => *number = 1 + random.below(20) as u64,
        (_, (_, Field::Varint(value))) => *value = *random.pick(&EXTREMES),
        (_, (_, Field::Bytes(inner))) if inner.is_empty() => inner.push(b'x'),
        (_, (_, Field::Fixed(inner) | Field::Bytes(inner))) => {
            let other = inner.clone();
            mutate(random, inner, &other);
        }
    }
    Some(written(&fields))
}

fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let take = |bytes: &mut &[u8], length: usize| {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(taken.to_vec())
        };
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => Field::Fixed(take(&mut bytes, 8)?),
            5 => Field::Fixed(take(&mut bytes, 4)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            _ => return None,
        };
        fields.push((key >> 3, field));
    }
    (fields.iter().all(|(number, _)| (1..200).contains(number))).then_some(fields)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn written(fields: &[(u64, Field)]) -> Vec<u8> {
    let mut out = Vec::new();
    let put = |out: &mut Vec<u8>, mut value: u64| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    for (number, field) in fields {
        match field {
            Field::Varint(value) => {
                put(&mut out, number << 3);
                put(&mut out, *value);
            }
            Field::Fixed(bytes) => {
                put(&mut out, number << 3 | if bytes.len() == 8 { 1 } else { 5 });
                out.extend_from_slice(bytes);
            }
            Field::Bytes(bytes) => {
                put(&mut out, number << 3 | 2);
                put(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

/// One mutation within one chunk of a PNG file, whose length and checksum are put right.
pub fn mutate_png(random: &mut Random, bytes: &[u8]) -> Option<Vec<u8>> {
    let (signature, mut rest) = bytes.split_at_checked(8)?;
    let mut chunks = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (body, after) = after.split_at_checked(4 + length)?;
        chunks.push(body.to_vec());
        rest = after.split_at_checked(4)?.1;
    }
    if chunks.is_empty() {
        return None;
    }
    let at = random.below(chunks.len());
    match random.below(5) {
        0 => drop(chunks.remove(at)),
        1 => chunks.insert(at, chunks[random.below(chunks.len())].clone()),
        _ => {
            let mut data = chunks[at].split_off(4);
            let other = data.clone();
            mutate(random, &mut data, &other);
            chunks[at].extend(data);
        }
    }
    let mut out = signature.to_vec();
    for chunk in chunks {
        out.extend(u32::try_from(chunk.len() - 4).ok()?.to_be_bytes());
        out.extend(&chunk);
        out.extend(crc32(&chunk).to_be_bytes());
    }
    Some(out)
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        let start = crc ^ u32::from(*byte);
        (0..8).fold(start, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// True if bytes are a message in protocol buffers' wire format.
pub fn is_message(bytes: &[u8]) -> bool {
    fields(bytes).is_some_and(|fields| !fields.is_empty())
}
