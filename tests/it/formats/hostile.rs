//! Headers that lie: each is refused with a reason, before anything is allocated for it.

use super::write::{Tensor, Value, gguf, safetensors};
use crate::support::expect;
use anyhow::{Context, Result, ensure};
use darkroom::model::weights::header::{Encoding, Header};

fn reason(file: &[u8]) -> Result<String> {
    let error = Header::read(file).err().context("a file that lies was read")?.to_string();
    ensure!(!error.contains('\n') && error.len() < 1000, "no short line: {error}");
    Ok(error)
}

fn tensor(name: &str, shape: &[u64], kind: u32, bytes: usize) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), kind, bytes: vec![0; bytes] }
}

#[test]
fn a_gguf_that_lies_is_refused_with_a_reason() -> Result<()> {
    let whole = gguf(&[("general.alignment", Value::U32(32))], &[tensor("a", &[2, 32], 8, 68)]);
    let read = Header::read(&whole)?;
    ensure!(read.tensors[0].shape == [2, 32] && read.tensors[0].range.len() == 68);
    for length in 4..whole.len() {
        expect(&reason(&whole[..length])?, &["truncated"]).context(length)?;
    }
    let with = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let huge = u64::MAX.to_le_bytes();
    let list =
        |of, count, bytes: &[u8]| gguf(&[("list", Value::List(of, count, bytes.to_vec()))], &[]);
    let one = |name: &str, shape: &[u64], kind| gguf(&[], &[tensor(name, shape, kind, 64)]);
    let twice = [tensor("a", &[8], 0, 32), tensor("a", &[8], 0, 32)];
    let mut overlapping = gguf(&[], &[tensor("a", &[8], 0, 32), tensor("b", &[8], 0, 32)]);
    let second = overlapping.windows(9).position(|w| w == b"\x01\0\0\0\0\0\0\0b").context("b")?;
    overlapping[second + 9 + 4 + 8 + 4] = 16; // the offset of the second tensor
    for (file, expected) in [
        (with(4, &1u32.to_le_bytes()), "version is 1"),
        (with(4, &3u32.to_be_bytes()), "big-endian"),
        (with(8, &huge), "claims 18446744073709551615 tensors"),
        (with(16, &huge), "claims 18446744073709551615 keys"),
        (with(24, &huge), "truncated"),
        (gguf(&[("general.alignment", Value::U32(0))], &[]), "general.alignment"),
        (gguf(&[("a", Value::Text("")), ("a", Value::U32(1))], &[]), "key a is in it twice"),
        (list(0, u64::MAX, &[]), "truncated"),
        (list(10, u64::MAX, &[]), "too long"),
        (list(8, u64::MAX, &[0; 64]), "truncated"),
        (list(9, 1, &[0; 12]), "a list of type 9"),
        (list(77, 1, &[0; 12]), "a list of type 77"),
        (one("a", &[u64::MAX, 2], 0), "has shape"),
        (one("a", &[1 << 40, 1 << 40, 0], 0), "has shape"),
        (one("a", &[0, 1 << 40, 1 << 40], 24), "has shape"),
        (one("a", &[1 << 40], 0), "truncated"),
        (one("a", &[33], 8), "has shape [33] in Q8_0"),
        (one("a", &[1; 9], 0), "9 dimensions"),
        (one("a\nb", &[8], 39), "tensor a?b has ggml's type 39"),
        (one(&"a".repeat(70_000), &[8], 0), "too long"),
        (gguf(&[], &twice), "tensor a is in it twice"),
        (overlapping, "tensors a and b overlap"),
    ] {
        expect(&reason(&file)?, &[expected])?;
    }
    Ok(())
}

#[test]
fn a_safetensors_that_lies_is_refused_with_a_reason() -> Result<()> {
    let whole = safetensors(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
            "b":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}  "#,
        8,
    );
    let read = Header::read(&whole)?;
    ensure!(read.tensors.len() == 2 && read.tensors[1].encoding == Encoding::Bytes);
    for length in 0..whole.len() {
        reason(&whole[..length]).context(length)?;
    }
    let one = |dtype: &str, shape: &str, from: u64, to: u64| {
        let offsets = format!("[{from},{to}]");
        let info = format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#);
        safetensors(&format!(r#"{{"a":{info}}}"#), 8)
    };
    let info = |from, to| format!(r#"{{"dtype":"U8","shape":[8],"data_offsets":[{from},{to}]}}"#);
    let two = |a: &str, b: &str, from| {
        safetensors(&format!(r#"{{"{a}":{},"{b}":{}}}"#, info(0, 8), info(from, from + 8)), 16)
    };
    for (file, expected) in [
        (u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes"),
        (safetensors("[]", 0), "an object of tensors"),
        (safetensors(&"[".repeat(1 << 20), 0), "its header is wrong"),
        (safetensors(&r#"{"a":"#.repeat(1 << 18), 0), "its header is wrong"),
        (safetensors(r#"{"a":1}"#, 0), "its header is wrong"),
        (one("F32", "[2]", 0, 9), "does not fill its bytes"),
        (one("F32", "[3]", 0, 8), "does not fill its bytes"),
        (one("F32", "[2]", 8, 0), "offsets that are none"),
        (one("F32", "[2]", u64::MAX - 8, u64::MAX), "offsets that are none"),
        (one("F32", "[4611686018427387905,4]", 0, 16), "does not fill its bytes"),
        (one("F32", "[-2]", 0, 8), "its header is wrong"),
        (one("F32", &format!("[{}1]", "1,".repeat(1000)), 0, 4), "at most 8 sizes"),
        (one("F99\n", "[2]", 0, 8), "its header is wrong"),
        (one("F99", "[2]", 0, 8), "type F99 is not known"),
        (one("F32", "[1]", 0, 4), "8 follow the header"),
        (two("a", "a", 8), "tensor a is in it twice"),
        (two("a", "b", 4), "tensors a and b overlap"),
        (b"PK\x03\x04 and more".to_vec(), "convert it to safetensors"),
    ] {
        expect(&reason(&file)?, &[expected])?;
    }
    let many: Vec<String> = (0..8_001).map(|i| format!(r#""{i}":{}"#, info(0, 8))).collect();
    let many = safetensors(&format!("{{{}}}", many.join(",")), 8);
    expect(&reason(&many)?, &["more than 8000 tensors"])
}
