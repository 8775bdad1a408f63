//! The header of safetensors: a length, a JSON object of tensors, then their bytes without a gap.
//!
//! Source: the format's description in github.com/huggingface/safetensors, README.

use super::{
    Encoding, Header, Kind, MAX_DIMS, MAX_TENSORS, Metadata, TensorInfo, count_of, size_of,
};
use darkroom_kernels::quant::Format;
use serde::{
    Deserialize,
    de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// The largest header that is read, in bytes. The released transformer's has 60 KB.
const MAX_HEADER: u64 = 16 << 20;

/// Bytes of the JSON in a file of `size` bytes that begins with `bytes`.
pub(super) fn length(bytes: &[u8], size: usize) -> Result<usize, String> {
    let Some(head) = bytes.first_chunk::<8>() else {
        return Err("it is shorter than 8 bytes".to_owned());
    };
    let length = u64::from_le_bytes(*head);
    if length > MAX_HEADER {
        return Err(format!("its header claims {length} bytes, at most {MAX_HEADER} are allowed"));
    }
    if length > size.saturating_sub(8) as u64 {
        return Err(format!("its header claims {length} bytes, more than it has: it is truncated"));
    }
    Ok(length as usize)
}

/// Reads the header of a file of `size` bytes of which `bytes` are the first, the JSON included.
pub(super) fn read(bytes: &[u8], size: usize) -> Result<Header, String> {
    let length = length(bytes, size)?;
    let json = bytes.get(8..8 + length).unwrap_or_default();
    let data = size - 8 - length;
    // Writers pad the header with spaces, which JSON allows.
    let Listed(listed) =
        serde_json::from_slice(json).map_err(|error| format!("its header is wrong: {error}"))?;
    let start = 8 + length;
    let tensors: Vec<TensorInfo> =
        listed.into_iter().map(|(name, info)| info.check(name, start)).collect::<Result<_, _>>()?;
    let held: usize =
        tensors.iter().map(|tensor| tensor.range.len()).fold(0, usize::saturating_add);
    if held != data {
        return Err(format!(
            "its tensors take {held} bytes, but {data} follow the header: it is truncated, or its \
             header lies"
        ));
    }
    Ok(Header { kind: Kind::Safetensors, tensors, metadata: Metadata::default() })
}

/// The tensors in the order of the file; a bounded list, since it is filled from a file.
struct Listed(Vec<(String, Info)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: Dtype,
    shape: Dims,
    data_offsets: [u64; 2],
}

struct Dims(Vec<usize>);

#[derive(Clone, Copy)]
struct Dtype(Encoding, usize);

impl Info {
    fn check(self, name: String, start: usize) -> Result<TensorInfo, String> {
        let wrong = |reason: &str| format!("tensor {} {reason}", super::shown(&name));
        let Dtype(encoding, size) = self.dtype;
        let Dims(shape) = self.shape;
        let length = match encoding {
            Encoding::Weights(format) => size_of(&shape, format),
            Encoding::Bytes | Encoding::Other(_) => {
                count_of(&shape).and_then(|count| count.checked_mul(size))
            }
        };
        let [from, to] = self.data_offsets.map(|offset| usize::try_from(offset).ok());
        let place = |from: usize, to: usize| Some(start.checked_add(from)?..start.checked_add(to)?);
        let range = from.zip(to).filter(|(from, to)| from <= to).and_then(|(a, b)| place(a, b));
        let range = range.ok_or_else(|| wrong("has offsets that are none"))?;
        if length != Some(range.len()) {
            return Err(wrong("has a shape that does not fill its bytes"));
        }
        Ok(TensorInfo { name, shape, encoding, range })
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!(
                            "it lists more than {MAX_TENSORS} tensors"
                        )));
                    }
                    tensors.push((name, map.next_value()?));
                }
                Ok(Listed(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMS} sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = list.next_element::<usize>()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::invalid_length(dims.len() + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(Shape)
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(match name.as_str() {
            "F32" => Self(Encoding::Weights(Format::F32), 4),
            "F16" => Self(Encoding::Weights(Format::F16), 2),
            "BF16" => Self(Encoding::Weights(Format::BF16), 2),
            "F8_E4M3" => Self(Encoding::Weights(Format::F8E4M3), 1),
            "F8_E5M2" => Self(Encoding::Weights(Format::F8E5M2), 1),
            "U8" => Self(Encoding::Bytes, 1),
            "F64" => Self(Encoding::Other("F64"), 8),
            "I64" => Self(Encoding::Other("I64"), 8),
            "U64" => Self(Encoding::Other("U64"), 8),
            "I32" => Self(Encoding::Other("I32"), 4),
            "U32" => Self(Encoding::Other("U32"), 4),
            "I16" => Self(Encoding::Other("I16"), 2),
            "U16" => Self(Encoding::Other("U16"), 2),
            "I8" => Self(Encoding::Other("I8"), 1),
            "BOOL" => Self(Encoding::Other("BOOL"), 1),
            "F8_E8M0" => Self(Encoding::Other("F8_E8M0"), 1),
            _ => {
                let name = super::shown(&name);
                return Err(D::Error::custom(format_args!("type {name} is not known")));
            }
        })
    }
}
