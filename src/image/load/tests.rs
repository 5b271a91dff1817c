use super::*;

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/image").join(name)
}

fn read(path: &Path) -> Result<Rgb8> {
    load(path, InputLimit::default())
}

/// Returns the golden files of a format with their contents.
fn files(extension: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(golden("load"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .filter(|(name, _)| name.ends_with(extension) && !name.ends_with(".rgb.png"))
        .collect();
    files.sort();
    files
}

/// Loads `bytes` as a file.
fn read_bytes(dir: &tempfile::TempDir, bytes: &[u8]) -> Result<Rgb8> {
    let path = dir.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    read(&path)
}

/// Compares each file with its golden PNG from Pillow. Only lossy WebP may differ, since decoders may.
#[test]
fn every_kind_of_file_becomes_what_pillow_makes_of_it() {
    let mut kinds = 0;
    for (name, _) in files("") {
        let path = golden("load").join(&name);
        let want = read(&golden("load").join(format!("{name}.rgb.png"))).unwrap();
        let got = read(&path).unwrap_or_else(|e| panic!("{e}"));
        let size = dimensions(&path, InputLimit::default()).unwrap();
        assert_eq!(size, (want.width(), want.height()), "{name}");
        assert_eq!((got.width(), got.height()), (want.width(), want.height()), "{name}");
        let worst = got.data().iter().zip(want.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let bound = if name == "lossy.webp" { 6 } else { 0 };
        assert!(worst <= bound, "{name}: {worst} levels off");
        kinds += 1;
    }
    assert!(kinds > 30, "{kinds} files");
}

#[test]
fn a_jpeg_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(".jpg");
    assert!(files.len() > 15, "{} files", files.len());
    for (name, bytes) in files {
        let end = bytes.len() - 20;
        for length in (3..end).step_by(13).chain(end..bytes.len()) {
            let Err(error) = read_bytes(&dir, &bytes[..length]) else {
                panic!("{name}: {length} of {} bytes are read as an image", bytes.len())
            };
            assert!(matches!(error, Error::Input { .. }), "{name}: {error}");
        }
        // Data after the image is ignored.
        assert!(read_bytes(&dir, &[&bytes[..], b"trailer"].concat()).is_ok(), "{name}");
    }
}

/// The last twelve bytes of a PNG, an empty chunk, contain no pixels.
#[test]
fn other_formats_cut_within_their_pixels_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (extension, end) in [(".png", 12), (".bmp", 0), (".webp", 0)] {
        for (name, bytes) in files(extension) {
            for length in 12..bytes.len() - end {
                let cut = read_bytes(&dir, &bytes[..length]);
                assert!(cut.is_err(), "{name}: {length} of {} bytes are read as an image", bytes.len());
            }
        }
    }
}

/// Triggers each of libjpeg's warnings about compressed data.
#[test]
fn damage_to_the_compressed_data_of_a_jpeg_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |name: &str| std::fs::read(golden("load").join(name)).unwrap();
    let after_scan_header = |bytes: &[u8]| {
        let at = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))
    };
    for name in ["lossy-420.jpg", "lossy-odd-422.jpg", "lossy-grey.jpg"] {
        let good = bytes(name);
        let (start, end) = (after_scan_header(&good), good.len() - 2);
        let middle = (start + end) / 2;
        let with = |at: usize, removed: usize, added: &[u8]| {
            let mut damaged = good.clone();
            damaged.splice(at..at + removed, added.iter().copied());
            damaged
        };
        for (damaged, word) in [
            (with(middle, 2, &[0xff, 0xd9]), "missing"),
            (with(middle, end - middle, &[]), "missing"),
            (with(end, 0, &[0x12, 0x34]), "after the last pixel"),
            (with(middle, 6, &[0xff, 0, 0xff, 0, 0xff, 0]), "unknown code"),
            (with(end, 2, &[]), "truncated"),
        ] {
            let error = read_bytes(&dir, &damaged).unwrap_err().to_string();
            assert!(error.contains(word), "{name}: {word}: {error}");
        }
    }
    let mut damaged = bytes("lossy-restart.jpg");
    let at = damaged.windows(2).position(|pair| pair == [0xff, 0xd1]).unwrap();
    damaged[at + 1] = 0xd5;
    let error = read_bytes(&dir, &damaged).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

/// Empty scans take a few bytes each, but a pass over the image each.
#[test]
fn a_jpeg_with_very_many_scans_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(golden("load/lossy-odd-grey-progressive.jpg")).unwrap();
    let starts: Vec<_> =
        (0..good.len() - 1).filter(|&at| good[at] == 0xff && matches!(good[at + 1], 0xc4 | 0xda)).collect();
    // The second scan, with its Huffman table: coefficients 1 to 5, here of all bits.
    let [_, _, table, header, end, ..] = starts[..] else { panic!("{starts:?}") };
    let mut scan = good[table..end].to_vec();
    let precision = header - table + 9;
    assert_eq!(scan[precision - 2..=precision], [1, 5, 2]);
    scan[precision] = 0;
    let with = |count: usize| [&good[..good.len() - 2], &scan.repeat(count)[..], &good[good.len() - 2..]].concat();
    assert!(read_bytes(&dir, &with(200)).is_ok());
    let error = read_bytes(&dir, &with(300)).unwrap_err().to_string();
    assert!(error.contains("it has more than 256 scans"), "{error}");
}

/// No byte of a file, changed in any way, makes a decoder panic or hang.
#[test]
fn changed_bytes_give_an_image_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for extension in [".jpg", ".png", ".bmp", ".webp"] {
        let (mut read, mut refused) = (0, 0);
        for (_, bytes) in files(extension) {
            for at in (0..bytes.len()).step_by(17) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                match read_bytes(&dir, &changed) {
                    Ok(_) => read += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 0, "{extension}: {read} of {} changed files are read", read + refused);
    }
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let png = std::fs::read(golden("load/rgb.png")).unwrap();
    for (name, bytes, word) in [
        ("text.png", b"a prompt".to_vec(), "format"),
        ("page.jpg", b"<html></html>".to_vec(), "format"),
        ("empty.png", Vec::new(), "format"),
        ("cut.png", png[..png.len() / 2].to_vec(), "decoded"),
        ("stub.png", png[..20].to_vec(), "decoded"),
        ("stub.jpg", vec![0xff, 0xd8, 0xff], "decoded"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains(word), "{error}");
    }
    assert!(read(dir.path()).unwrap_err().to_string().contains("is a directory"));
    assert!(read(&dir.path().join("none.png")).unwrap_err().to_string().contains("no such file"));
}

/// Headers of huge images with almost no data: the size is rejected, not the missing pixels.
#[test]
fn a_large_image_is_refused_by_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let png = |width: u32, height: u32, color| {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_chunk(png::chunk::IDAT, &[0x78]).unwrap();
        file
    };
    let jpeg = |width: u16, height: u16| {
        let mut file = std::fs::read(golden("load/lossy.jpg")).unwrap();
        let at = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        file[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        file[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
        file
    };
    let bmp = |width: i32, height: i32| {
        let mut file = std::fs::read(golden("load/rgb.bmp")).unwrap();
        file[18..22].copy_from_slice(&width.to_le_bytes());
        file[22..26].copy_from_slice(&height.to_le_bytes());
        file
    };
    for (name, bytes, size) in [
        ("wide.png", png(64_000_001, 1, png::ColorType::Rgb), "64000001×1"),
        ("large.png", png(8_001, 8_000, png::ColorType::Grayscale), "8001×8000"),
        ("large.jpg", jpeg(65_000, 65_000), "65000×65000"),
        ("large.bmp", bmp(20_000, 20_000), "20000×20000"),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let limit = InputLimit::default();
        let errors = [
            dimensions(&path, limit).unwrap_err(),
            load(&path, limit).unwrap_err(),
            crate::image::load_gray(&path, limit).unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            let is_told = error.contains(name) && error.contains(size) && error.contains("64 megapixels");
            assert!(is_told && error.contains("max_input_megapixels"), "{error}");
        }
        // With a higher limit the missing pixels are rejected.
        let error = load(&path, InputLimit::new(4_300)).unwrap_err().to_string();
        assert!(!error.contains("megapixels"), "{error}");
    }
    let path = dir.path().join("large.png");
    let error = crate::image::load_labels(&path, InputLimit::default()).unwrap_err().to_string();
    assert!(error.contains("8001×8000") && error.contains("max_input_megapixels"), "{error}");
    std::fs::write(&path, png(8_000, 8_000, png::ColorType::Grayscale)).unwrap();
    assert_eq!(dimensions(&path, InputLimit::default()).unwrap(), (8_000, 8_000));
    assert!(dimensions(&path, InputLimit::new(63)).is_err());
}

#[test]
fn the_name_does_not_decide_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.jpg");
    std::fs::copy(golden("load/rgb.png"), &path).unwrap();
    assert_eq!(read(&path).unwrap(), read(&golden("load/rgb.png")).unwrap());
}
