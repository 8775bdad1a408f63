//! Which variant of a model fits a machine, and why.

use super::machine::Machine;
use crate::{
    config::{Manifest, Variant},
    domain::Bytes,
};

/// What a job of one megapixel and the system need beside the weights, in bytes.
const BESIDE: u64 = 4 << 30;

/// A variant, and the reason for it as a sentence.
#[derive(Clone, Debug)]
pub(super) struct Choice<'a> {
    pub(super) variant: &'a Variant,
    pub(super) reason: String,
}

/// How a variant fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It does.
    Yes,
    /// So many bytes are needed where there are fewer.
    No(u64),
    /// The system does not tell how much memory there is.
    Unknown,
}

/// Whether a variant fits: on a card its transformer and its VAE, the rest in the machine's memory;
/// without a card all of it in memory.
pub(super) fn fits(manifest: &Manifest, variant: &Variant, machine: &Machine) -> Fit {
    let all = manifest.bytes(variant);
    let parts = manifest.parts(variant).into_iter();
    let computing = parts.filter(|(name, ..)| ["transformer", "vae"].contains(name));
    let on_card: u64 = computing.map(|(_, part, _)| part.bytes).sum();
    let needed = match &machine.card {
        Some((_, card)) if on_card + BESIDE > *card => return Fit::No(on_card + BESIDE),
        // What is on the card has passed through memory, but does not stay there.
        Some(_) => all - on_card,
        None => all,
    } + BESIDE;
    match machine.memory {
        None => Fit::Unknown,
        Some(memory) if needed > memory => Fit::No(needed),
        Some(_) => Fit::Yes,
    }
}

/// The best variant that fits, else the smallest. None where the manifest has no variants.
pub(super) fn choose<'a>(manifest: &'a Manifest, machine: &Machine) -> Option<Choice<'a>> {
    let place = match (&machine.card, machine.memory) {
        (Some((name, bytes)), _) => format!("{} of {name}", Bytes(*bytes)),
        (None, Some(memory)) => format!("{} of memory", Bytes(memory)),
        (None, None) => "memory of unknown size".to_owned(),
    };
    let weights = |variant: &Variant| Bytes(manifest.bytes(variant));
    let mut larger = None;
    for variant in &manifest.variants {
        match fits(manifest, variant, machine) {
            Fit::Yes => {
                let why_not = larger.map(|(larger, needed): (&Variant, u64)| {
                    format!("; {} would need {}", larger.name, Bytes(needed))
                });
                let reason = format!(
                    "{} of weights and {} for a job fit in {place}{}",
                    weights(variant),
                    Bytes(BESIDE),
                    why_not.unwrap_or_default()
                );
                return Some(Choice { variant, reason });
            }
            Fit::No(needed) => larger = Some((variant, needed)),
            Fit::Unknown => {}
        }
    }
    let variant = manifest.variants.iter().min_by_key(|variant| manifest.bytes(variant))?;
    let reason = format!(
        "no variant fits in {place}; this is the smallest, with {} of weights, and it will be slow",
        weights(variant)
    );
    Some(Choice { variant, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variant for a machine with so many GiB of memory, and a card of so many.
    fn chosen(memory: u64, card: Option<u64>) -> (String, String) {
        let manifest = Manifest::released().expect("it is part of the program");
        let machine = Machine {
            memory: Some(memory << 30),
            card: card.map(|bytes| ("a card".to_owned(), bytes << 30)),
            ..Machine::default()
        };
        let choice = choose(&manifest, &machine).expect("it has variants");
        (choice.variant.name.clone(), choice.reason)
    }

    #[test]
    fn the_best_variant_that_fits_is_chosen_with_the_reason() {
        let cases = [
            (
                64,
                None,
                "bf16",
                "31.4 GiB of weights and 4.0 GiB for a job fit in 64.0 GiB of memory",
            ),
            (24, None, "q8_0", "fit in 24.0 GiB of memory; bf16 would need 35.4 GiB"),
            (20, None, "q6_k", "; q8_0 would need 20.9 GiB"),
            (16, None, "q4_k_m", "; fp8 would need "),
            (8, None, "q4_k_m", "no variant fits in 8.0 GiB of memory"),
            (64, Some(32), "bf16", "fit in 32.0 GiB of a card"),
            (64, Some(24), "q8_0", "; bf16 would need 26.3 GiB"),
            (64, Some(14), "q6_k", "fit in 14.0 GiB of a card"),
            (8, Some(24), "q4_k_m", "fit in 24.0 GiB of a card"),
            (64, Some(4), "q4_k_m", "no variant fits in 4.0 GiB of a card"),
        ];
        for (memory, card, expected, reason) in cases {
            let (name, said) = chosen(memory, card);
            assert_eq!(name, expected, "{memory} GiB, card {card:?}: {said}");
            assert!(said.contains(reason), "{memory} GiB, card {card:?}: {said}");
        }
    }
}
