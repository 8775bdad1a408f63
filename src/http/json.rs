//! An edit as JSON: pictures are text in base64.
//!
//! The body is read into one [`Upload`], and parsed where it lies: a picture is decoded from there
//! into an upload of its own, a piece at a time, and no copy of it is made. Only text with escapes
//! in it is put together in the parser's own buffer first, which is not zeroed.

use super::{
    ApiError, Code,
    fields::{Edit, Field, Value},
    loras::{self, LoraUse},
};
use crate::service::{Service, ServiceError, Upload};
use axum::body::Body;
use base64::{
    Engine,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use futures_util::StreamExt;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use zeroize::Zeroizing;

/// Characters of base64 that are decoded at once: a multiple of four.
const PIECE: usize = 16 << 10;
/// Padding is taken off before.
const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, NO_PAD);

/// What to send instead of what is no picture.
const ALLOWED: &str = "expected a file in base64, or data:image/png;base64, and that; or a list";

/// Reads an edit.
///
/// # Errors
/// The body is no JSON object, or a field of it cannot be used.
pub(super) async fn read(body: Body, service: &Service) -> Result<Edit, ApiError> {
    let mut text = service.upload();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let cut = |_| ApiError::new(Code::InvalidJson, "the body ended early, send it again");
        text.push(&chunk.map_err(cut)?)?;
    }
    let service = service.clone();
    // A body of many megabytes takes longer than others should wait for.
    let parsed = tokio::task::spawn_blocking(move || parse(&text.join(), &service)).await;
    parsed.map_err(|_| ServiceError::Broken)?
}

fn parse(text: &[u8], service: &Service) -> Result<Edit, ApiError> {
    let mut reader = Reader { edit: Edit::default(), service, refused: None };
    let mut parser = serde_json::Deserializer::from_slice(text);
    let read = parser.deserialize_map(&mut reader).and_then(|()| parser.end());
    match (reader.refused, read) {
        (Some(refused), _) => Err(refused),
        (None, Ok(())) => Ok(reader.edit),
        // Its text would show the value.
        (None, Err(error)) if error.is_data() => {
            let message =
                "the body is JSON, but not an object, send one with the fields of an edit";
            Err(ApiError::new(Code::InvalidJson, message))
        }
        (None, Err(error)) => {
            Err(ApiError::new(Code::InvalidJson, format!("the body is not JSON: {error}")))
        }
    }
}

/// Reads the members of an object, one after another, into an edit. Refuses at the first that it can
/// not use, so that what is yet to come takes no memory.
struct Reader<'s> {
    edit: Edit,
    service: &'s Service,
    refused: Option<ApiError>,
}

impl Reader<'_> {
    /// Stops the parser where `result` is an error, which it cannot carry itself.
    fn go_on<T, E: Error>(&mut self, result: Result<T, ApiError>) -> Result<T, E> {
        result.map_err(|refused| {
            self.refused = Some(refused);
            E::custom("refused")
        })
    }

    /// Reads a list of adapters.
    fn loras<'de, A: SeqAccess<'de>>(
        &mut self,
        field: &Field,
        mut list: A,
    ) -> Result<(), A::Error> {
        let begun = self.edit.begin_loras(field);
        self.go_on(begun)?;
        loop {
            // What is no JSON at all is refused here too: it is the value of this field.
            let lora = match list.next_element::<LoraUse>() {
                Ok(None) => return Ok(()),
                Ok(Some(lora)) => self.edit.lora(lora),
                Err(_) => Err(field.refuse("not that list", loras::EXPECTED)),
            };
            self.go_on(lora)?;
        }
    }

    /// Decodes a picture.
    fn picture(&mut self, field: &Field, text: &str) -> Result<(), ApiError> {
        let mut upload = self.edit.picture(self.service)?;
        let number = self.edit.pictures.len() + 1;
        let begins = |with: &str| {
            text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        if begins("http://") || begins("https://") {
            let is = format!("an address (picture {number})");
            let allowed = "no address is fetched; send the file in base64 or as a data: URL";
            return Err(field.refuse(is, allowed));
        }
        let url = begins("data:").then(|| text.split_once(";base64,"));
        let coded = url.map_or(Some(text), |parts| parts.map(|(_, coded)| coded));
        let decoded = coded.map_or(Ok(false), |coded| decode(coded, &mut upload))?;
        if !decoded {
            return Err(field.refuse(format!("not base64 (picture {number})"), ALLOWED));
        }
        self.edit.pictures.push(upload);
        Ok(())
    }
}

/// Adds what `text` is in base64, with or without padding, white space anywhere; false where it is
/// something else.
fn decode(text: &str, upload: &mut Upload) -> Result<bool, ApiError> {
    let text = text.trim_end_matches(|c: char| c == '=' || c.is_ascii_whitespace());
    let mut coded = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).peekable();
    let mut piece = Zeroizing::new([0; PIECE]);
    let mut bytes = Zeroizing::new([0; PIECE / 4 * 3]);
    while coded.peek().is_some() {
        let mut length = 0;
        for (slot, byte) in piece.iter_mut().zip(&mut coded) {
            *slot = byte;
            length += 1;
        }
        match BASE64.decode_slice(&piece[..length], &mut *bytes) {
            Ok(length) => upload.push(&bytes[..length])?,
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

impl<'de> Visitor<'de> for &mut Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(field) = members.next_key_seed(Name)? {
            let member = Member { field: self.go_on(field)?, reader: self, listed: false };
            members.next_value_seed(member)?;
        }
        Ok(())
    }
}

/// Looks a member's name up.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Result<&'static Field, ApiError>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Result<&'static Field, ApiError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Field::named(name))
    }
}

/// Takes a member's value, or an element of the list that it is.
struct Member<'r, 's> {
    field: &'static Field,
    reader: &'r mut Reader<'s>,
    listed: bool,
}

impl Member<'_, '_> {
    fn set<E: Error>(self, value: Value<'_>) -> Result<(), E> {
        let Self { field, reader, .. } = self;
        let set = if field.is_picture() {
            Err(field.refuse(value, ALLOWED))
        } else {
            reader.edit.set(field, value)
        };
        reader.go_on(set)
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    /// Null is as good as nothing, but not in a list.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.listed { self.set(Value::Other("null")) } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        self.set(Value::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.set(Value::Whole(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.set(Value::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.set(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !self.field.is_picture() {
            return self.set(Value::Text(text));
        }
        let decoded = self.reader.picture(self.field, text);
        self.reader.go_on(decoded)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { field, reader, listed } = self;
        if field.is_loras() {
            return reader.loras(field, list);
        }
        if listed || !field.is_picture() {
            return Member { field, reader, listed }.set(Value::Other("a list"));
        }
        loop {
            let element = Member { field, reader: &mut *reader, listed: true };
            if list.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        self.set(Value::Other("an object"))
    }
}
