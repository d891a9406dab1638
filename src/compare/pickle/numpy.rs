//! Arrays in pickles: by which calls `numpy` and `joblib` make them.

use std::borrow::Cow;

use super::super::array::{Array, Element, Type};
use super::{Id, Made, Node, Picture};

/// How deep types may be nested.
const DEPTH_MAX: usize = 8;

/// What joblib tells of the elements that stand behind.
pub(super) struct Wrapped {
    /// Whether a gap stands in front of them, and a byte that says how long it is.
    pub(super) is_aligned: bool,
    /// How many bytes they have; `None` if they are objects.
    pub(super) bytes: Option<usize>,
}

impl Picture<'_> {
    /// Returns what is known of the elements that follow, if this thing is what joblib writes in place of an array.
    pub(super) fn wrapped(&self, thing: Id, state: Id) -> Option<Wrapped> {
        let Node::Made(made) = &self.nodes[thing] else { return None };
        let (name, _) = self.call(made)?;
        if name != "joblib.numpy_pickle.NumpyArrayWrapper" {
            return None;
        }
        let is_aligned =
            self.get(state, "numpy_array_alignment_bytes").is_some_and(|id| !matches!(self.nodes[id], Node::None));
        let dtype = self.get(state, "dtype")?;
        let bytes = match self.kind(dtype, 0) {
            Some(kind) => {
                let count = self.shape(self.get(state, "shape")?)?.into_iter().try_fold(1, u64::checked_mul)?;
                Some(usize::try_from(count).ok()?.checked_mul(kind.bytes()?)?)
            }
            None => None,
        };
        // Objects have no alignment.
        Some(Wrapped { is_aligned: is_aligned && bytes.is_some(), bytes })
    }

    pub(super) fn shape(&self, id: Id) -> Option<Vec<u64>> {
        self.items(id)?.iter().map(|id| u64::try_from(self.whole(*id)?).ok()).collect()
    }

    /// Returns the array that a call makes, if it is one whose elements are at hand.
    pub(super) fn array(&self, id: Id) -> Option<Array<'_>> {
        let array = match &self.nodes[id] {
            Node::Raw { wrapper, data } => {
                let state = *wrapper.states.last()?;
                let is_fortran = self.text(self.get(state, "order")?) == Some("F");
                let shape = self.shape(self.get(state, "shape")?)?;
                Array { kind: self.kind(self.get(state, "dtype")?, 0)?, shape, is_fortran, data: Cow::Borrowed(data) }
            }
            Node::Made(made) => self.array_of_call(made).or_else(|| self.tensor(made))?,
            _ => return None,
        };
        array.elements().is_some().then_some(array)
    }

    fn array_of_call(&self, made: &Made) -> Option<Array<'_>> {
        let (name, arguments) = self.call(made)?;
        match (name, arguments) {
            ("numpy._core.multiarray._reconstruct", _) => {
                let state = self.items(*made.states.last()?)?;
                let [shape, dtype, is_fortran, data] = state.last_chunk()?;
                let is_fortran = self.whole(*is_fortran)? != 0;
                let (kind, shape) = (self.kind(*dtype, 0)?, self.shape(*shape)?);
                Some(Array { kind, shape, is_fortran, data: Cow::Borrowed(self.bytes(*data)?) })
            }
            ("numpy._core.numeric._frombuffer", [data, dtype, shape, order]) => {
                let is_fortran = self.text(*order) == Some("F");
                let (kind, shape) = (self.kind(*dtype, 0)?, self.shape(*shape)?);
                Some(Array { kind, shape, is_fortran, data: Cow::Borrowed(self.buffer(*data)?) })
            }
            ("numpy._core.multiarray.scalar", [dtype, data]) => {
                let kind = self.kind(*dtype, 0)?;
                Some(Array { kind, shape: Vec::new(), is_fortran: false, data: Cow::Borrowed(self.bytes(*data)?) })
            }
            _ => None,
        }
    }

    /// Returns bytes that are there as such, or that a call makes of them.
    fn buffer(&self, id: Id) -> Option<&[u8]> {
        match &self.nodes[id] {
            Node::Made(made) => match self.call(made)? {
                ("builtins.bytearray" | "builtins.bytes", [data]) => self.bytes(*data),
                _ => None,
            },
            _ => self.bytes(id),
        }
    }

    /// Returns what elements are, of a call that makes a `dtype`; `None` if they are objects.
    pub(super) fn kind(&self, id: Id, depth: usize) -> Option<Type> {
        let Node::Made(made) = &self.nodes[id] else { return None };
        let ("numpy.dtype", [code, ..]) = self.call(made)? else { return None };
        let mut kind = Type::of_code(self.text(*code)?)?;
        let Some(state) = made.states.last().and_then(|id| self.items(*id)) else { return Some(kind) };
        let [_, order, inner, names, fields, size, ..] = state else { return None };
        kind.is_big_endian = self.text(*order) == Some(">");
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some([inner, shape]) = self.items(*inner) {
            let count = self.shape(*shape)?.into_iter().try_fold(1, u64::checked_mul)?;
            let inner = self.kind(*inner, depth + 1)?;
            let count = usize::try_from(count).ok()?.checked_mul(inner.count)?;
            return Some(Type { count, ..inner });
        }
        let Some(names) = self.items(*names) else { return Some(kind) };
        let field = |name: &Id| {
            let name = self.text(*name)?;
            let [inner, offset, ..] = self.items(self.get(*fields, name)?)? else { return None };
            Some((name.to_owned(), usize::try_from(self.whole(*offset)?).ok()?, self.kind(*inner, depth + 1)?))
        };
        let fields = names.iter().map(field).collect::<Option<Vec<_>>>()?;
        let bytes = usize::try_from(self.whole(*size)?).ok()?;
        let ends =
            fields.iter().map(|(_, offset, kind)| offset.checked_add(kind.bytes()?)).collect::<Option<Vec<_>>>()?;
        let fits = ends.into_iter().all(|end| end <= bytes);
        fits.then(|| Type::of(Element::Fields { fields, bytes }))
    }
}
