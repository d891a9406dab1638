//! Tensors in pickles: by which calls `torch` makes them of what is kept beside the pickle.

use std::borrow::Cow;

use super::super::Precision::{Brain, Double, Half, Single};
use super::super::array::{Array, Element, Type};
use super::{Id, Made, Node, Picture};

const TENSOR: &str = "torch._utils._rebuild_tensor_v2";
/// Behind where a tensor lies stands what else it is: whether it takes part in training, and so on.
const PLACES: usize = 4;
/// No version has more than so many arguments.
const ARGUMENTS_MAX: usize = 8;

/// What a pickle says of something that is kept beside it.
pub(super) struct Kept<'a> {
    /// Its name there.
    pub(super) key: &'a str,
    /// What its elements are.
    pub(super) kind: Type,
}

impl Picture<'_> {
    /// Returns what else a tensor is than its elements; `None` if a call makes something else.
    pub(super) fn about_tensor(&self, id: Id) -> Option<&[Id]> {
        let Node::Made(made) = &self.nodes[id] else { return None };
        let (TENSOR, arguments) = self.call(made)? else { return None };
        (arguments.len() <= ARGUMENTS_MAX).then(|| arguments.get(PLACES..))?
    }

    /// Returns the tensor that a call makes, in the order of its indices, wherever its elements lie.
    pub(super) fn tensor(&self, made: &Made) -> Option<Array<'_>> {
        let (TENSOR, arguments) = self.call(made)? else { return None };
        let [storage, offset, lengths, strides, ..] = arguments else { return None };
        if arguments.len() > ARGUMENTS_MAX {
            return None;
        }
        let Kept { key, kind, .. } = self.kept(*storage)?;
        let (data, width) = (self.storages.get(key)?, kind.bytes()?);
        let offset = usize::try_from(self.whole(*offset)?).ok()?;
        let (shape, strides) = (self.shape(*lengths)?, self.shape(*strides)?);
        let lengths = shape.iter().map(|length| usize::try_from(*length).ok()).collect::<Option<Vec<_>>>()?;
        let strides = strides.iter().map(|stride| usize::try_from(*stride).ok()).collect::<Option<Vec<_>>>()?;
        let count = lengths.iter().try_fold(1, |all: usize, length| all.checked_mul(*length))?;
        // One that says its elements more than once may be larger than any memory.
        if lengths.len() != strides.len() || count.checked_mul(width)? > data.len() {
            return None;
        }
        let array = |data| Some(Array { kind: kind.clone(), shape: shape.clone(), is_fortran: false, data });
        if count == 0 {
            return array(Cow::Borrowed(&[][..]));
        }
        let reaches = lengths.iter().zip(&strides);
        let last = reaches
            .clone()
            .try_fold(offset, |at, (length, stride)| at.checked_add((length - 1).checked_mul(*stride)?))?;
        let element = |at: usize| data.get(at.checked_mul(width)?..at.checked_add(1)?.checked_mul(width)?);
        element(last)?;
        if is_in_order(&lengths, &strides) {
            return array(Cow::Borrowed(&data[offset * width..(offset + count) * width]));
        }
        let mut out = Vec::with_capacity(count * width);
        let mut indices = vec![0; lengths.len()];
        for _ in 0..count {
            let at = indices.iter().zip(&strides).map(|(index, stride)| index * stride).sum::<usize>() + offset;
            out.extend_from_slice(element(at)?);
            for (index, length) in indices.iter_mut().zip(&lengths).rev() {
                *index += 1;
                if *index < *length {
                    break;
                }
                *index = 0;
            }
        }
        array(Cow::Owned(out))
    }

    /// Returns everything that the pickle says is kept beside it.
    pub(super) fn all_kept(&self) -> impl Iterator<Item = Kept<'_>> {
        (0..self.nodes.len()).filter_map(|id| self.kept(id))
    }

    /// Returns what is kept elsewhere as an array of one dimension, if it is and has bytes for whole elements.
    pub(super) fn storage(&self, id: Id) -> Option<Array<'_>> {
        let Kept { key, kind, .. } = self.kept(id)?;
        let data = self.storages.get(key)?;
        let count = data.len() / kind.bytes()?;
        Some(Array { kind, shape: vec![count as u64], is_fortran: false, data: Cow::Borrowed(data) })
    }

    fn kept(&self, id: Id) -> Option<Kept<'_>> {
        let Node::Elsewhere(name) = &self.nodes[id] else { return None };
        let [word, class, key, _, _, rest @ ..] = self.items(*name)? else { return None };
        // One that is a part of another was told so behind the rest, by very old versions.
        let is_whole = rest.iter().all(|id| matches!(self.nodes[*id], Node::None));
        if self.text(*word) != Some("storage") || !is_whole {
            return None;
        }
        let Node::Global(class) = &self.nodes[*class] else { return None };
        Some(Kept { key: self.text(*key)?, kind: Type::of(element(class)?) })
    }
}

/// Returns whether elements that lie so come one after the other, the last index changing fastest.
fn is_in_order(lengths: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    lengths.iter().zip(strides).rev().all(|(length, stride)| {
        let fits = *length == 1 || *stride == expected;
        expected *= length;
        fits
    })
}

/// Returns what an element of a storage of a class is.
fn element(class: &str) -> Option<Element> {
    let whole = |bytes, signed| Element::Whole { bytes, signed };
    Some(match class.strip_prefix("torch.")? {
        "DoubleStorage" => Element::Float(Double),
        "FloatStorage" => Element::Float(Single),
        "HalfStorage" => Element::Float(Half),
        "BFloat16Storage" => Element::Float(Brain),
        "LongStorage" => whole(8, true),
        "IntStorage" | "QInt32Storage" => whole(4, true),
        "ShortStorage" => whole(2, true),
        "CharStorage" | "QInt8Storage" => whole(1, true),
        "ByteStorage" | "QUInt8Storage" => whole(1, false),
        "BoolStorage" => Element::Bool,
        "ComplexFloatStorage" => Element::Complex(Single),
        "ComplexDoubleStorage" => Element::Complex(Double),
        // What has no type of its own is told apart by bytes.
        _ => Element::Bytes(1),
    })
}
