//! A writer of GGUF and of safetensors, for files that no one else would write.

/// A value of GGUF's metadata.
pub(super) enum Value {
    U32(u32),
    Text(&'static str),
    /// A list of so many of a type, and its bytes.
    List(u32, u64, Vec<u8>),
}

/// A tensor: its name, shape, type by ggml's number, and bytes.
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) kind: u32,
    pub(super) bytes: Vec<u8>,
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

/// A GGUF file of version 3.
pub(super) fn gguf(metadata: &[(&str, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut file, key);
        match value {
            Value::U32(n) => {
                file.extend(4u32.to_le_bytes());
                file.extend(n.to_le_bytes());
            }
            Value::Text(value) => {
                file.extend(8u32.to_le_bytes());
                text(&mut file, value);
            }
            Value::List(of, count, bytes) => {
                file.extend(9u32.to_le_bytes());
                file.extend(of.to_le_bytes());
                file.extend(count.to_le_bytes());
                file.extend(bytes);
            }
        }
    }
    let mut offset = 0u64;
    for tensor in tensors {
        text(&mut file, &tensor.name);
        file.extend((tensor.shape.len() as u32).to_le_bytes());
        for dim in tensor.shape.iter().rev() {
            file.extend(dim.to_le_bytes());
        }
        file.extend(tensor.kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes.len() as u64).next_multiple_of(32);
    }
    for tensor in tensors {
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&tensor.bytes);
    }
    file
}

/// A safetensors file with this header, whatever it says.
pub(super) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}
