//! From the header of an adapter's file to what it will do: which layers, by which tensors, with
//! every shape checked. No number is read yet.

use super::{
    error::LoraError,
    keys::{Key, Network, Role},
    metadata::Alphas,
    names::{Names, Place},
};
use crate::model::{ops::Axis, weights::TensorFile};
use std::collections::{BTreeMap, BTreeSet};

/// Names that an error shows.
const SHOWN: usize = 5;

/// What an adapter's file will do.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// Who writes such names.
    pub(super) families: BTreeSet<&'static str>,
    /// Which kinds of adapters it consists of.
    pub(super) kinds: BTreeSet<&'static str>,
    /// The highest rank.
    pub(super) rank: usize,
}

/// What is done to one layer, or to several that the file has as one.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) network: Network,
    pub(super) place: Place,
    pub(super) form: Form,
    pub(super) scale: Scale,
    pub(super) magnitude: Option<(String, Axis)>,
    pub(super) bias: Option<String>,
}

/// The tensors of a difference [outputs, inputs].
#[derive(Debug)]
pub(super) enum Form {
    /// up [outputs, rank] times down [rank, inputs].
    LowRank { down: String, up: String, down_bias: Option<String>, up_bias: Option<String> },
    /// The Kronecker product of two factors.
    Kronecker([Factor; 2]),
    /// Two products, multiplied number by number: each left and right.
    Hadamard([[String; 2]; 2]),
    /// The difference itself.
    Whole(String),
    /// None: only the bias changes.
    Nothing,
}

/// A factor [rows, columns], or the product of two tensors.
#[derive(Debug)]
pub(super) struct Factor {
    pub(super) shape: [usize; 2],
    pub(super) tensors: Vec<String>,
    /// What is between the two.
    pub(super) rank: Option<usize>,
}

/// What the difference is multiplied by.
#[derive(Debug)]
pub(super) enum Scale {
    One,
    /// This, from the file's metadata.
    Known(f32),
    /// The tensor over the rank.
    Alpha(String, usize),
}

/// The tensors of one layer.
struct Group<'a> {
    file: &'a TensorFile,
    layer: &'a str,
    network: Network,
    place: &'a Place,
    tensors: BTreeMap<Role, &'a str>,
}

fn is_matrix(shape: &[usize]) -> bool {
    matches!(shape, [rows, columns] if *rows > 0 && *columns > 0)
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> (usize, String) {
    let names: Vec<&str> = names.collect();
    let rest = if names.len() > SHOWN { ", ..." } else { "" };
    let first: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    (names.len(), format!("{}{rest}", first.join(", ")))
}

impl Plan {
    pub(super) fn read(
        file: &TensorFile,
        transformer: &Names,
        clip: &Names,
    ) -> Result<Self, LoraError> {
        let alphas = Alphas::read(file)?;
        let mut families = BTreeSet::new();
        let (mut unknown, mut t5) = (Vec::new(), Vec::new());
        let mut groups: BTreeMap<(Network, &str), Group<'_>> = BTreeMap::new();
        for name in file.names() {
            file.check_type(name)?;
            let Some(key) = Key::parse(name) else {
                unknown.push(name);
                continue;
            };
            let names = match key.network {
                Network::Transformer => transformer,
                Network::Clip => clip,
                Network::T5 => {
                    t5.push(name);
                    continue;
                }
            };
            let Some(place) = names.find(key.layer, key.scored) else {
                unknown.push(name);
                continue;
            };
            families.insert(key.family);
            let group = groups.entry((key.network, key.layer)).or_insert_with(|| Group {
                file,
                layer: key.layer,
                network: key.network,
                place,
                tensors: BTreeMap::new(),
            });
            if let Some(first) = group.tensors.insert(key.role, name) {
                return Err(twice(file, first, name));
            }
        }
        let name = file.name();
        if !unknown.is_empty() {
            let (count, names) = shown(unknown.into_iter());
            return Err(LoraError::Unknown { file: name, count, names });
        }
        if !t5.is_empty() {
            let (count, names) = shown(t5.into_iter());
            return Err(LoraError::TextEncoder { file: name, count, names });
        }
        if groups.is_empty() {
            return Err(LoraError::Empty { file: name });
        }
        one_name_for_each_layer(file, &groups)?;
        let mut plan = Self { changes: Vec::new(), families, kinds: BTreeSet::new(), rank: 0 };
        for group in groups.into_values() {
            plan.add(group, &alphas)?;
        }
        Ok(plan)
    }

    fn add(&mut self, mut group: Group<'_>, alphas: &Alphas) -> Result<(), LoraError> {
        let (form, rank, kind) = group.form()?;
        let alpha = group.tensors.remove(&Role::Alpha);
        let scale = match (alpha, rank) {
            (Some(alpha), Some(rank)) => {
                group.must_be(alpha, "one number", |shape| shape.iter().product::<usize>() == 1)?;
                Scale::Alpha(alpha.to_owned(), rank)
            }
            (None, Some(rank)) if matches!(form, Form::LowRank { .. }) => {
                alphas.of(&group.place.parts, rank).map_or(Scale::One, Scale::Known)
            }
            // Without a product there is nothing that a rank could have scaled: LyCORIS, too, leaves
            // an alpha aside that stands beside whole factors.
            _ => Scale::One,
        };
        let magnitude = group.magnitude()?;
        let bias = group.tensors.remove(&Role::WholeBias);
        if let Some(bias) = bias {
            group.expect_sizes(bias, &[group.place.outputs])?;
        }
        if !group.tensors.is_empty() || (matches!(form, Form::Nothing) && bias.is_none()) {
            return Err(group.incomplete());
        }
        if magnitude.is_some() && matches!(form, Form::Nothing) {
            return Err(group.incomplete());
        }
        self.rank = self.rank.max(rank.unwrap_or(0));
        self.kinds.insert(if magnitude.is_some() { "dora" } else { kind });
        self.changes.push(Change {
            network: group.network,
            place: group.place.clone(),
            form,
            scale,
            magnitude,
            bias: bias.map(str::to_owned),
        });
        Ok(())
    }
}

fn twice(file: &TensorFile, first: &str, second: &str) -> LoraError {
    LoraError::Twice { file: file.name(), first: first.to_owned(), second: second.to_owned() }
}

/// Some files have all layers under two names; to add both would double their effect.
fn one_name_for_each_layer(
    file: &TensorFile,
    groups: &BTreeMap<(Network, &str), Group<'_>>,
) -> Result<(), LoraError> {
    let mut seen: BTreeMap<(Network, &str), &str> = BTreeMap::new();
    for group in groups.values() {
        let tensor = group.tensors.values().next().copied().unwrap_or_default();
        for part in &group.place.parts {
            if let Some(first) = seen.insert((group.network, part.layer.as_str()), tensor) {
                return Err(twice(file, first, tensor));
            }
        }
    }
    Ok(())
}

impl Group<'_> {
    fn take<const N: usize>(&mut self, roles: [Role; N]) -> Option<[String; N]> {
        if !roles.iter().all(|role| self.tensors.contains_key(role)) {
            return None;
        }
        Some(roles.map(|role| self.tensors.remove(&role).unwrap_or_default().to_owned()))
    }

    /// How the difference is made, with its rank where it has one, and what such an adapter is
    /// called.
    fn form(&mut self) -> Result<(Form, Option<usize>, &'static str), LoraError> {
        let (n, k) = (self.place.outputs, self.place.inputs);
        if let Some([down, up]) = self.take([Role::Down, Role::Up]) {
            let rank = self.shape(&down).first().copied().unwrap_or(0).max(1);
            self.expect_sizes(&down, &[rank, k])?;
            self.expect_sizes(&up, &[n, rank])?;
            let mut bias = |role, size| -> Result<Option<String>, LoraError> {
                let Some([name]) = self.take([role]) else { return Ok(None) };
                self.expect_sizes(&name, &[size])?;
                Ok(Some(name))
            };
            let (down_bias, up_bias) = (bias(Role::DownBias, rank)?, bias(Role::UpBias, n)?);
            return Ok((Form::LowRank { down, up, down_bias, up_bias }, Some(rank), "lora"));
        }
        if let Some([a, b, c, d]) =
            self.take([Role::Hada1A, Role::Hada1B, Role::Hada2A, Role::Hada2B])
        {
            let mut ranks = [0; 2];
            for (rank, [left, right]) in ranks.iter_mut().zip([[&a, &b], [&c, &d]]) {
                *rank = self.shape(right).first().copied().unwrap_or(0).max(1);
                self.expect_sizes(left, &[n, *rank])?;
                self.expect_sizes(right, &[*rank, k])?;
            }
            return Ok((Form::Hadamard([[a, b], [c, d]]), Some(ranks[0]), "loha"));
        }
        let first = self.factor(Role::Kron1, [Role::Kron1A, Role::Kron1B])?;
        let second = self.factor(Role::Kron2, [Role::Kron2A, Role::Kron2B])?;
        match (first, second) {
            (Some(first), Some(second)) => {
                let product =
                    [0, 1].map(|i| first.shape[i].checked_mul(second.shape[i]).unwrap_or_default());
                if product != [n, k] {
                    let tensor = second.tensors.first().cloned().unwrap_or_default();
                    let [a, b] = first.shape;
                    let expected = format!("one that makes [{n}, {k}] of [{a}, {b}]");
                    let (file, found) = (self.file.name(), second.shape.to_vec());
                    return Err(LoraError::Shape { file, tensor, expected, found });
                }
                let rank = second.rank.or(first.rank);
                return Ok((Form::Kronecker([first, second]), rank, "lokr"));
            }
            (None, None) => {}
            _ => return Err(self.incomplete()),
        }
        if let Some([whole]) = self.take([Role::Whole]) {
            self.expect_sizes(&whole, &[n, k])?;
            return Ok((Form::Whole(whole), None, "full"));
        }
        Ok((Form::Nothing, None, "full"))
    }

    fn factor(&mut self, whole: Role, parts: [Role; 2]) -> Result<Option<Factor>, LoraError> {
        if let Some([name]) = self.take([whole]) {
            self.must_be(&name, "rows and columns", is_matrix)?;
            let shape = [self.shape(&name)[0], self.shape(&name)[1]];
            return Ok(Some(Factor { shape, tensors: vec![name], rank: None }));
        }
        let Some([left, right]) = self.take(parts) else { return Ok(None) };
        self.must_be(&left, "rows and columns", is_matrix)?;
        let [rows, rank] = [self.shape(&left)[0], self.shape(&left)[1]];
        let columns = self.shape(&right).last().copied().unwrap_or(0);
        self.must_be(&right, &format!("{rank} rows"), |s| is_matrix(s) && s[0] == rank)?;
        let tensors = vec![left, right];
        Ok(Some(Factor { shape: [rows, columns], tensors, rank: Some(rank.max(1)) }))
    }

    /// A magnitude for each output, or one for each input where its shape is a row.
    fn magnitude(&mut self) -> Result<Option<(String, Axis)>, LoraError> {
        let Some([name]) = self.take([Role::Magnitude]) else { return Ok(None) };
        let (n, k) = (self.place.outputs, self.place.inputs);
        let shape = self.shape(&name);
        let axis = match shape {
            [size] | [size, 1] if *size == n => Axis::Outputs,
            [1, size] if *size == k => Axis::Inputs,
            _ => {
                let expected = format!("[{n}], [{n}, 1] or [1, {k}]");
                return Err(self.misshapen(&name, expected));
            }
        };
        Ok(Some((name, axis)))
    }

    /// A tensor's shape without what convolutions have behind.
    fn shape(&self, name: &str) -> &[usize] {
        match self.file.shape(name) {
            [rows @ .., 1, 1] if rows.len() == 2 => rows,
            shape => shape,
        }
    }

    fn expect_sizes(&self, name: &str, sizes: &[usize]) -> Result<(), LoraError> {
        self.must_be(name, &format!("{sizes:?}"), |shape| shape == sizes)
    }

    fn must_be(
        &self,
        name: &str,
        expected: &str,
        fits: impl FnOnce(&[usize]) -> bool,
    ) -> Result<(), LoraError> {
        if fits(self.shape(name)) { Ok(()) } else { Err(self.misshapen(name, expected.to_owned())) }
    }

    fn misshapen(&self, name: &str, expected: String) -> LoraError {
        let (file, found) = (self.file.name(), self.file.shape(name).to_vec());
        LoraError::Shape { file, tensor: name.to_owned(), expected, found }
    }

    fn incomplete(&self) -> LoraError {
        let left = self.tensors.values().copied();
        let (count, names) = shown(left);
        let found = if count == 0 { "there is only an alpha".to_owned() } else { names };
        LoraError::Incomplete { file: self.file.name(), layer: self.layer.to_owned(), found }
    }
}
