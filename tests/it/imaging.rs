//! Decoding, resizing and encoding of pictures, against PIL and against hostile files.

use darkroom::{
    domain::{Pixels, Size},
    imaging::{ImagingError, Limits, OutputFormat, decode, encode, resize},
};
use std::{fs, io::Cursor, path::PathBuf, time::Duration};

/// What this thread has used of a processor: unlike time, it does not grow on a busy machine.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number comes first"))
}

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/imaging").join(path)
}

fn sample(name: &str) -> Vec<u8> {
    fs::read(golden("decode").join(name)).unwrap()
}

/// A golden picture, read by other means than those under test.
fn expected(path: &str) -> Pixels {
    let file = fs::read(golden(path)).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut rgb).unwrap();
    assert_eq!(frame.color_type, png::ColorType::Rgb, "{path}");
    Pixels::new(frame.width, frame.height, rgb).unwrap()
}

fn read(bytes: &[u8]) -> Result<Pixels, ImagingError> {
    decode(bytes, &Limits::default())
}

/// The same as `pattern` in make.py.
fn pattern(width: u32, height: u32) -> Pixels {
    let pixel = |x: u32, y: u32| {
        let green = if (x / 5 + y / 3).is_multiple_of(2) { 255 } else { 0 };
        [(x * x * 3 + y * 7) as u8, green, ((x * 11) ^ (y * 29)) as u8]
    };
    let rows = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    Pixels::new(width, height, rows.collect()).unwrap()
}

/// The largest difference of a byte, and how many differ.
fn difference(one: &Pixels, other: &Pixels) -> (u8, usize) {
    assert_eq!((one.width(), one.height()), (other.width(), other.height()));
    let pairs = one.rgb().iter().zip(other.rgb());
    let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).filter(|d| *d > 0).collect();
    (differences.iter().copied().max().unwrap_or(0), differences.len())
}

/// Peak signal to noise ratio in decibels.
fn psnr(one: &Pixels, other: &Pixels) -> f64 {
    let square = |(a, b): (&u8, &u8)| f64::from(a.abs_diff(*b)).powi(2);
    let sum: f64 = one.rgb().iter().zip(other.rgb()).map(square).sum();
    10.0 * (255.0 * 255.0 * one.rgb().len() as f64 / sum).log10()
}

const PNGS: [&str; 15] = [
    "png_rgb",
    "png_rgba",
    "png_grey",
    "png_grey_alpha",
    "png_one_bit",
    "png_palette",
    "png_palette_transparent",
    "png_rgb_transparent",
    "png_turned",
    "png_rgb_16",
    "png_grey_16",
    "png_rgba_16",
    "png_interlaced",
    "png_animated",
    "png_one_pixel",
];

/// With the largest difference to libjpeg-turbo: another inverse DCT, another rounding of colours.
const JPEGS: [(&str, u8); 19] = [
    ("jpeg_444", 2),
    ("jpeg_422", 3),
    ("jpeg_420", 3),
    ("jpeg_progressive", 3),
    ("jpeg_restarts", 3),
    ("jpeg_grey", 1),
    ("jpeg_one_pixel", 0),
    ("jpeg_rgb", 1),
    ("jpeg_rgb_adobe", 1),
    ("jpeg_cmyk", 1),
    ("jpeg_ycck", 2),
    ("jpeg_orientation_1", 2),
    ("jpeg_orientation_2", 2),
    ("jpeg_orientation_3", 2),
    ("jpeg_orientation_4", 2),
    ("jpeg_orientation_5", 2),
    ("jpeg_orientation_6", 2),
    ("jpeg_orientation_7", 2),
    ("jpeg_orientation_8", 2),
];

const WEBPS: [&str; 8] = [
    "webp_lossless",
    "webp_lossless_alpha",
    "webp_lossy",
    "webp_lossy_alpha",
    "webp_turned",
    "webp_animated",
    "webp_animated_part",
    "webp_one_pixel",
];

/// All samples: file name, file name of what PIL makes of it, largest difference.
fn samples() -> Vec<(String, String, u8)> {
    let pngs = PNGS.map(|case| (format!("{case}.png"), format!("decode/{case}.expected.png"), 0));
    let jpegs =
        JPEGS.map(|(case, most)| (format!("{case}.jpg"), format!("decode/{case}.png"), most));
    let webps = WEBPS.map(|case| (format!("{case}.webp"), format!("decode/{case}.png"), 0));
    pngs.into_iter().chain(jpegs).chain(webps).collect()
}

#[test]
fn every_sample_decodes_as_pil_decodes_it() {
    for (file, golden, most) in samples() {
        let picture = read(&sample(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (largest, differing) = difference(&picture, &expected(&golden));
        assert!(largest <= most, "{file}: {differing} bytes differ, by up to {largest}");
    }
}

#[test]
fn every_sample_is_in_the_table() {
    let on_disk = fs::read_dir(golden("decode")).unwrap().count();
    assert_eq!(on_disk, 2 * samples().len());
}

#[test]
fn resizing_equals_pil_to_the_bit() {
    let mut cases = 0;
    for entry in fs::read_dir(golden("resize")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let numbers = name.trim_end_matches(".png").replace("_to_", "x");
        let sides: Vec<u32> = numbers.split('x').map(|side| side.parse().unwrap()).collect();
        let picture = resize(&pattern(sides[0], sides[1]), Size::new(sides[2], sides[3]));
        let difference = difference(&picture, &expected(&format!("resize/{name}")));
        assert_eq!(difference, (0, 0), "{name}: largest difference, bytes that differ");
        cases += 1;
    }
    assert_eq!(cases, 15);
}

#[test]
fn resizing_takes_any_size() {
    let sides = [0, 1, 2, 3, 17, 64, 8192];
    for (width, height) in [(1, 1), (1, 8192), (8192, 1), (97, 3), (3, 97)] {
        let picture = pattern(width, height);
        for to_width in sides {
            for to_height in sides.into_iter().filter(|side| side * to_width < 1_000_000) {
                let resized = resize(&picture, Size::new(to_width, to_height));
                assert_eq!(
                    (resized.width(), resized.height()),
                    (to_width.max(1), to_height.max(1))
                );
            }
        }
    }
}

#[test]
fn a_flat_picture_stays_flat_when_resized() {
    let flat = |width, height| Pixels::new(width, height, vec![201; (width * height * 3) as usize]);
    let resized = resize(&flat(123, 77).unwrap(), Size::new(64, 200));
    assert_eq!(Some(resized), flat(64, 200));
}

#[test]
fn what_is_no_picture_is_named_for_what_it_is() {
    let foreign = |found| ImagingError::ForeignFormat { found };
    let cases: [(&[u8], ImagingError); 9] = [
        (b"", ImagingError::Empty),
        (b"hello, this is a text", ImagingError::UnknownFormat),
        (&[0; 64], ImagingError::UnknownFormat),
        (b"RIFF\x24\0\0\0WAVEfmt ", ImagingError::UnknownFormat),
        (b"GIF89a\x01\0\x01\0", foreign("GIF")),
        (b"\0\0\0\x18ftypheic\0\0\0\0", foreign("HEIC")),
        (b"\0\0\0\x18ftypavif\0\0\0\0", foreign("AVIF")),
        (b"%PDF-1.7", foreign("PDF")),
        (b"<svg xmlns=", foreign("SVG")),
    ];
    for (bytes, error) in cases {
        assert_eq!(read(bytes), Err(error));
    }
}

#[test]
fn a_picture_cut_off_anywhere_is_an_error_and_never_a_part_of_it() {
    for (file, _, _) in samples() {
        let whole = sample(&file);
        for length in 0..whole.len() {
            match read(&whole[..length]) {
                Err(ImagingError::Truncated { bytes, .. }) => assert_eq!(bytes, length),
                Err(ImagingError::Empty | ImagingError::UnknownFormat) => assert!(length < 12),
                other => panic!("{file} cut to {length} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn what_follows_a_picture_is_ignored() {
    for file in ["png_rgb.png", "jpeg_420.jpg", "webp_lossy.webp"] {
        let whole = sample(file);
        let picture = read(&whole);
        assert!(picture.is_ok());
        assert_eq!(read(&[whole.as_slice(), b"a film of the moment"].concat()), picture, "{file}");
    }
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", sides.as_slice(), &[8, 2, 0, 0, 0, 0, 0, 0, 0]].concat()
}

fn jpeg_header(width: u16, height: u16) -> Vec<u8> {
    let (width, height) = (width.to_be_bytes(), height.to_be_bytes());
    let components = [3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    [&[0xff, 0xd8, 0xff, 0xc0, 0, 17, 8], height.as_slice(), &width, &components].concat()
}

/// An extended header for a canvas, and no picture.
fn webp_header(width: u32, height: u32) -> Vec<u8> {
    let (width, height) = ((width - 1).to_le_bytes(), (height - 1).to_le_bytes());
    let head = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0";
    [head, &width[..3], &height[..3]].concat()
}

/// A lossy picture's header inside a canvas of one pixel.
fn webp_liar(width: u16, height: u16) -> Vec<u8> {
    let (width, height) = (width.to_le_bytes(), height.to_le_bytes());
    let head = b"RIFF\x28\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0";
    [head, b"VP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a".as_slice(), &width, &height].concat()
}

#[test]
fn a_header_that_claims_too_much_is_refused_at_once() {
    let large =
        |width, height| Err(ImagingError::TooLarge { width, height, max_pixels: 64_000_000 });
    let cases = [
        (png_header(30_000, 30_000), large(30_000, 30_000)),
        (png_header(u32::MAX, u32::MAX), large(u32::MAX, u32::MAX)),
        (jpeg_header(30_000, 30_000), large(30_000, 30_000)),
        (jpeg_header(65_535, 65_535), large(65_535, 65_535)),
        (webp_header(30_000, 30_000), large(30_000, 30_000)),
        (webp_header(1 << 24, 1 << 24), large(1 << 24, 1 << 24)),
        (webp_liar(16_383, 16_383), large(16_383, 16_383)),
    ];
    let start = processor_time();
    for (bytes, error) in cases {
        assert_eq!(read(&bytes), error);
    }
    let long = ImagingError::TooLong { width: 1, height: 50_000, max_side: 32_768 };
    assert_eq!(read(&jpeg_header(1, 50_000)), Err(long));
    let taken = processor_time() - start;
    assert!(taken < Duration::from_millis(100), "{taken:?}");
}

#[test]
fn a_webp_frame_that_disagrees_with_its_canvas_is_refused() {
    assert!(matches!(read(&webp_liar(4000, 4000)), Err(ImagingError::Corrupt { .. })));
}

#[test]
fn the_limits_are_the_callers() {
    let limits = |max_pixels, max_side| Limits { max_pixels, max_side };
    for file in ["png_rgb.png", "jpeg_420.jpg", "webp_lossy.webp"] {
        let bytes = sample(file);
        assert!(decode(&bytes, &limits(45 * 31, 45)).is_ok());
        let few = decode(&bytes, &limits(45 * 31 - 1, 45));
        assert!(matches!(few, Err(ImagingError::TooLarge { width: 45, height: 31, .. })), "{file}");
        let short = decode(&bytes, &limits(45 * 31, 44));
        assert!(matches!(short, Err(ImagingError::TooLong { max_side: 44, .. })), "{file}");
    }
}

#[test]
fn errors_say_what_is_the_matter_and_what_to_do() {
    let cases = [
        (
            read(&png_header(30_000, 30_000)).unwrap_err(),
            "the picture is 30000x30000, that is 900 megapixels; at most 64 are allowed",
        ),
        (
            ImagingError::TooLarge { width: 8001, height: 8000, max_pixels: 64_000_000 },
            "the picture is 8001x8000, that is 64.1 megapixels; at most 64 are allowed",
        ),
        (
            read(&sample("webp_lossy.webp")[..100]).unwrap_err(),
            "the WebP picture is cut off after 100 bytes; send the whole file",
        ),
        (
            read(b"GIF89a").unwrap_err(),
            "this is a file of type GIF; save it as PNG, JPEG or WebP and send that",
        ),
        (
            encode(&pattern(3, 3), OutputFormat::Png, Some(0)).unwrap_err(),
            "the quality is 0; choose a number from 1 to 100",
        ),
    ];
    for (error, message) in cases {
        assert_eq!(error.to_string(), message);
    }
}

/// A chunk with a checksum that nobody reads.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    [&(data.len() as u32).to_be_bytes(), kind.as_slice(), data, &[0; 4]].concat()
}

#[test]
fn compressed_chunks_beside_the_picture_are_never_inflated() {
    // 60 MB of zeros, as zlib makes them of an empty page.
    let mut page = Vec::new();
    let mut encoder = png::Encoder::new(&mut page, 30_000, 2_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&vec![0; 60_000_000]).unwrap();
    let data = page.windows(4).position(|kind| kind == b"IDAT").unwrap() + 4;
    let bomb = &page[data..];
    let whole = sample("png_rgb.png");
    let (header, rest) = whole.split_at(33);
    let mut bytes = header.to_vec();
    for (kind, prefix) in
        [(b"iCCP", b"p\0\0".as_slice()), (b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\x01\0\0\0")]
    {
        for _ in 0..20 {
            bytes.extend(chunk(kind, &[prefix, bomb].concat()));
        }
    }
    bytes.extend_from_slice(rest);
    let start = processor_time();
    assert_eq!(read(&bytes), read(&whole));
    // Inflating takes seconds.
    let taken = processor_time() - start;
    assert!(taken < Duration::from_millis(500), "{taken:?}");
}

/// Flips, replaces and removes bytes everywhere in every sample. What comes out does not matter.
#[test]
fn no_damage_makes_the_decoder_panic_or_hang() {
    let limits = Limits { max_pixels: 1 << 16, max_side: 1 << 12 };
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (file, _, _) in samples() {
        let whole = sample(&file);
        for round in 0..400 {
            let mut bytes = whole.clone();
            // Headers break in more interesting ways than pixels do.
            let reach = if round % 2 == 0 { bytes.len().min(200) } else { bytes.len() };
            for _ in 0..=random(3) {
                let at = random(reach.min(bytes.len()));
                match random(4) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                    2 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, random(256) as u8),
                }
            }
            if let Ok(picture) = decode(&bytes, &limits) {
                assert!(u64::from(picture.width()) * u64::from(picture.height()) <= 1 << 16);
            }
        }
    }
}

#[test]
fn png_comes_back_exactly() {
    for (width, height) in [(1, 1), (45, 31), (300, 7)] {
        let picture = pattern(width, height);
        let file = encode(&picture, OutputFormat::Png, None).unwrap();
        assert_eq!(read(&file), Ok(picture));
    }
}

#[test]
fn lossy_formats_come_back_nearly_and_better_with_more_quality() {
    let picture = resize(&expected("decode/jpeg_444.png"), Size::new(180, 124));
    for (format, standard) in [(OutputFormat::Jpeg, 41.0), (OutputFormat::Webp, 38.0)] {
        let noise = |quality| {
            let file = encode(&picture, format, quality).unwrap();
            (psnr(&read(&file).unwrap(), &picture), file.len())
        };
        let (low, standard_noise, high) = (noise(Some(20)), noise(None), noise(Some(100)));
        assert!(low.0 < standard_noise.0 && standard_noise.0 < high.0, "{format}");
        assert!(low.1 < standard_noise.1 && standard_noise.1 < high.1, "{format}");
        assert!(standard_noise.0 > standard, "{format}: {} dB", standard_noise.0);
    }
}

#[test]
fn a_single_pixel_can_be_written_in_every_format() {
    let picture = Pixels::new(1, 1, vec![200, 30, 90]).unwrap();
    for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp] {
        let back = read(&encode(&picture, format, None).unwrap()).unwrap();
        assert!(difference(&back, &picture).0 <= 4, "{format}");
    }
}

#[test]
fn what_is_written_carries_no_metadata() {
    let picture = read(&sample("jpeg_orientation_6.jpg")).unwrap();
    let marks: [&[u8]; 9] =
        [b"Exif", b"EXIF", b"eXIf", b"a camera", b"ICCP", b"iCCP", b"XMP ", b"tEXt", b"tIME"];
    for format in [OutputFormat::Png, OutputFormat::Jpeg, OutputFormat::Webp] {
        let file = encode(&picture, format, None).unwrap();
        for mark in marks {
            assert!(!file.windows(mark.len()).any(|bytes| bytes == mark), "{format}: {mark:?}");
        }
    }
}

#[test]
fn encoding_refuses_what_a_format_cannot_express() {
    let long = Pixels::new(16_384, 1, vec![9; 3 * 16_384]).unwrap();
    let (width, height) = (16_384, 1);
    let error = ImagingError::TooLongForFormat { format: OutputFormat::Webp, width, height };
    assert_eq!(encode(&long, OutputFormat::Webp, None), Err(error));
    assert!(encode(&long, OutputFormat::Jpeg, None).is_ok());
    for quality in [0, 101, 255] {
        let error = ImagingError::Quality { quality };
        assert_eq!(encode(&pattern(3, 3), OutputFormat::Jpeg, Some(quality)), Err(error));
    }
}

#[test]
fn output_formats_are_named_as_in_the_api() {
    let names = [
        ("png", "png", "image/png"),
        ("jpeg", "jpg", "image/jpeg"),
        ("webp", "webp", "image/webp"),
    ];
    for (name, extension, mime) in names {
        let format: OutputFormat = name.parse().unwrap();
        assert_eq!(
            (format.to_string().as_str(), format.extension(), format.mime()),
            (name, extension, mime)
        );
    }
    assert_eq!("jpg".parse(), Ok(OutputFormat::Jpeg));
    let error = "gif".parse::<OutputFormat>().unwrap_err();
    assert_eq!(
        (error.field, error.to_string().as_str()),
        ("output_format", "output_format is gif, expected png, jpeg or webp")
    );
}
