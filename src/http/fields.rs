//! What an edit is made of on the wire: one table of fields, whatever form a request comes in.
//!
//! `form` and `json` find a field here by its name and hand its value back, so that the two forms
//! cannot differ in what they know, what they accept, or how they refuse. Ranges are not checked
//! here: they are the domain's.

use super::{
    ApiError, Code,
    loras::{self, LoraUse},
    params::shown,
};
use crate::{
    domain::{Lora, ParamError, Prompt},
    service::{Draft, Priority, Service, ServiceError, Terms, Upload},
};
use std::fmt;

/// Bytes of a prompt that are read: the most that its characters can take.
const MAX_PROMPT: usize = 128 << 10;
/// Bytes of a list that are read.
const MAX_LIST: usize = 4 << 10;
/// Bytes of any other text that are read.
const MAX_WORD: usize = 1 << 10;

/// A field of an edit.
#[derive(Debug)]
pub(super) struct Field {
    /// Its name, in both forms and in errors.
    pub(super) name: &'static str,
    kind: Kind,
}

/// What a field holds, and where that goes.
#[derive(Debug)]
enum Kind {
    /// A file, as often as there are pictures.
    Picture,
    Prompt(fn(&mut Edit) -> &mut Option<Prompt>),
    Word(fn(&mut Edit, &str) -> Result<(), ParamError>),
    Number(fn(&mut Edit) -> &mut Option<f32>),
    /// False where the number is larger than its type.
    Whole(fn(&mut Edit, u64) -> bool),
    Flag(fn(&mut Edit) -> &mut bool),
    /// A list; in a form one after another, or all as JSON.
    Loras,
    /// What other servers have, and this one refuses by name.
    Mask,
}

const FIELDS: &[Field] = &[
    Field::new("image", Kind::Picture),
    Field::new("prompt", Kind::Prompt(|edit| &mut edit.draft.prompt)),
    Field::new("negative_prompt", Kind::Prompt(|edit| &mut edit.draft.negative_prompt)),
    Field::new("true_cfg_scale", Kind::Number(|edit| &mut edit.draft.true_cfg_scale)),
    Field::new("guidance_scale", Kind::Number(|edit| &mut edit.draft.guidance_scale)),
    Field::new(
        "num_inference_steps",
        Kind::Whole(|edit, n| put(&mut edit.draft.num_inference_steps, n)),
    ),
    Field::new("seed", Kind::Whole(|edit, n| put(&mut edit.draft.seed, n))),
    Field::new("width", Kind::Whole(|edit, n| put(&mut edit.draft.width, n))),
    Field::new("height", Kind::Whole(|edit, n| put(&mut edit.draft.height, n))),
    Field::new("aspect_ratio", Kind::Word(|edit, text| parse(&mut edit.draft.aspect_ratio, text))),
    Field::new(
        "max_sequence_length",
        Kind::Whole(|edit, n| put(&mut edit.draft.max_sequence_length, n)),
    ),
    Field::new(
        "reference_method",
        Kind::Word(|edit, text| parse(&mut edit.draft.reference_method, text)),
    ),
    Field::new("step_cache", Kind::Number(|edit| &mut edit.draft.step_cache)),
    Field::new("loras", Kind::Loras),
    Field::new("style", Kind::Word(|edit, text| word(&mut edit.draft.style, text))),
    Field::new("model", Kind::Word(|edit, text| word(&mut edit.model, text))),
    Field::new(
        "output_format",
        Kind::Word(|edit, text| {
            edit.terms.output_format = text.parse()?;
            Ok(())
        }),
    ),
    Field::new("priority", Kind::Word(priority)),
    Field::new("ephemeral", Kind::Flag(|edit| &mut edit.terms.ephemeral)),
    Field::new("mask", Kind::Mask),
];

fn put<T: TryFrom<u64>>(slot: &mut Option<T>, number: u64) -> bool {
    *slot = number.try_into().ok();
    slot.is_some()
}

fn parse<T: std::str::FromStr<Err = ParamError>>(
    slot: &mut Option<T>,
    text: &str,
) -> Result<(), ParamError> {
    *slot = Some(text.parse()?);
    Ok(())
}

/// A name, which the service looks up.
fn word(slot: &mut Option<String>, text: &str) -> Result<(), ParamError> {
    *slot = Some(text.to_owned());
    Ok(())
}

fn priority(edit: &mut Edit, text: &str) -> Result<(), ParamError> {
    let known = Priority::ALL.into_iter().find(|priority| priority.name() == text);
    edit.terms.priority = known.ok_or_else(|| {
        ParamError::new("priority", Value::Text(text), "expected interactive or batch")
    })?;
    Ok(())
}

fn no_masks() -> ApiError {
    let message = "masks are not supported, leave mask out and say in the prompt what to change";
    ApiError::new(Code::MaskNotSupported, message).field("mask")
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }

    /// The field called `name`.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn named(name: &str) -> Result<&'static Self, ApiError> {
        FIELDS.iter().find(|field| field.name == name).ok_or_else(|| {
            let usable = FIELDS.iter().filter(|field| !matches!(field.kind, Kind::Mask));
            let known = usable.map(|field| field.name).collect::<Vec<_>>().join(", ");
            let name = shown(name);
            let message = format!("the field \"{name}\" is not known, expected one of {known}");
            ApiError::new(Code::UnknownField, message).field(name)
        })
    }

    /// Whether it holds pictures.
    pub(super) fn is_picture(&self) -> bool {
        matches!(self.kind, Kind::Picture)
    }

    /// Whether it holds adapters.
    pub(super) fn is_loras(&self) -> bool {
        matches!(self.kind, Kind::Loras)
    }

    /// Checks that it may have text of so many bytes, and perhaps more to come.
    ///
    /// # Errors
    /// That is too long, or it is a mask.
    pub(super) fn check_length(&self, bytes: usize) -> Result<(), ApiError> {
        let (limit, allowed) = match self.kind {
            Kind::Mask => return Err(no_masks()),
            Kind::Prompt(_) => (MAX_PROMPT, "at most 32000 characters are allowed"),
            Kind::Loras => (MAX_LIST, "at most 4096 bytes are allowed"),
            _ => (MAX_WORD, "at most 1024 bytes are allowed"),
        };
        if bytes > limit {
            return Err(self.refuse(format!("longer than {limit} bytes"), allowed));
        }
        Ok(())
    }

    /// An error about what it holds.
    pub(super) fn refuse(&self, value: impl fmt::Display, allowed: impl Into<String>) -> ApiError {
        ParamError::new(self.name, value, allowed).into()
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// Of a form, where everything is text.
    Written(&'a str),
    /// Text of JSON.
    Text(&'a str),
    /// A whole number of JSON.
    Whole(u64),
    /// Any other number of JSON.
    Number(f64),
    /// Of JSON.
    Flag(bool),
    /// What no field can be, in words.
    Other(&'static str),
}

/// As errors show it. Never that of a prompt, which is text and so not refused.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(text) | Self::Text(text) => write!(f, "\"{}\"", shown(text)),
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl<'a> Value<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Written(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Written(text) => text.trim().parse().ok(),
            Self::Whole(number) => Some(number as f64),
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    fn whole(self) -> Option<u64> {
        match self {
            Self::Written(text) => text.trim().parse().ok(),
            Self::Whole(number) => Some(number),
            _ => None,
        }
    }

    fn flag(self) -> Option<bool> {
        match self {
            Self::Written(text) => text.trim().parse().ok(),
            Self::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

/// An edit, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Edit {
    pub(super) draft: Draft,
    pub(super) model: Option<String>,
    pub(super) terms: Terms,
    pub(super) pictures: Vec<Upload>,
    given: Vec<&'static str>,
}

impl Edit {
    /// Sets a field that is no picture. Empty text of a form, as browsers send it, is none.
    ///
    /// # Errors
    /// The field was set before, or cannot hold the value.
    pub(super) fn set(&mut self, field: &Field, value: Value<'_>) -> Result<(), ApiError> {
        if let Some(text) = value.text() {
            field.check_length(text.len())?;
        }
        if matches!(value, Value::Written(text) if text.trim().is_empty()) {
            return Ok(());
        }
        if let (Kind::Loras, Value::Written(text)) = (&field.kind, value) {
            self.draft.loras.extend(loras::written(text.trim())?);
            return Ok(Lora::validate_all(&self.draft.loras)?);
        }
        self.give(field)?;
        let wrong = |allowed: &str| field.refuse(value, allowed);
        match field.kind {
            Kind::Picture => return Err(wrong("expected a picture")),
            Kind::Loras => return Err(wrong(loras::EXPECTED)),
            Kind::Mask => return Err(no_masks()),
            Kind::Prompt(slot) => {
                let text = value.text().ok_or_else(|| wrong("expected text"))?;
                *slot(self) = Some(Prompt::new(text));
            }
            Kind::Word(set) => {
                let text = value.text().ok_or_else(|| wrong("expected text"))?;
                set(self, text.trim())?;
            }
            Kind::Number(slot) => {
                let number = value.number().ok_or_else(|| wrong("expected a number"))?;
                *slot(self) = Some(number as f32);
            }
            Kind::Whole(set) => {
                let wrong_kind = || wrong("expected a whole number, 0 or more");
                let number = value.whole().ok_or_else(wrong_kind)?;
                if !set(self, number) {
                    return Err(wrong("expected a smaller number"));
                }
            }
            Kind::Flag(slot) => {
                *slot(self) = value.flag().ok_or_else(|| wrong("expected true or false"))?;
            }
        }
        Ok(())
    }

    /// Notes that a field was set.
    fn give(&mut self, field: &Field) -> Result<(), ApiError> {
        if self.given.contains(&field.name) {
            return Err(field.refuse("given twice", "send it once"));
        }
        self.given.push(field.name);
        Ok(())
    }

    /// Begins the list of adapters.
    ///
    /// # Errors
    /// There was one before.
    pub(super) fn begin_loras(&mut self, field: &Field) -> Result<(), ApiError> {
        self.give(field)
    }

    /// Adds an adapter to the list.
    ///
    /// # Errors
    /// Its name or strength can be none's, or there are too many.
    pub(super) fn lora(&mut self, lora: LoraUse) -> Result<(), ApiError> {
        self.draft.loras.push(lora.check()?);
        Ok(Lora::validate_all(&self.draft.loras)?)
    }

    /// Room for one more picture.
    ///
    /// # Errors
    /// It has as many as it may.
    pub(super) fn picture(&self, service: &Service) -> Result<Upload, ApiError> {
        let limit = service.options().images;
        if self.pictures.len() >= limit {
            let count = self.pictures.len() + 1;
            return Err(ServiceError::TooManyPictures { count, limit }.into());
        }
        Ok(service.upload())
    }
}
