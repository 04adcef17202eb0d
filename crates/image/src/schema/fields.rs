//! The fields of a message, in tables that hold hardly any addresses.
//!
//! A program that may lie anywhere in memory has every address in its tables put right when it starts, and a page of its
//! own made for each page that has one. There are more than a thousand fields, and of most of them no run asks. So what
//! has no address is kept apart from what has one, and each name is told by its place among all names of the message.

use super::{Field, Kind, Label, Show};

/// Kinds without an address, by their codes.
const KINDS: [Kind; 8] = [
    Kind::Bool,
    Kind::Int,
    Kind::Sint,
    Kind::Uint,
    Kind::Fixed64,
    Kind::String,
    Kind::Text,
    Kind::Bytes,
];

/// Display options without an address, by their codes.
const SHOWS: [Show; 6] = [
    Show::Plain,
    Show::Hex,
    Show::Dev,
    Show::Odev,
    Show::Ip,
    Show::SocketName,
];

/// The fields of a message.
#[derive(Debug)]
pub(crate) struct Fields {
    pub(crate) packed: &'static [Packed],
    /// One after the other.
    pub(crate) names: &'static str,
    pub(crate) linked: &'static [(Kind, Show)],
}

/// A field as far as it is told without an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    number: u32,
    /// Where its name begins, and its length.
    name: (u16, u8),
    label: Label,
    form: Form,
}

/// What it is, and how it is shown.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// By codes.
    Plain(u8, u8),
    /// By place among those with addresses.
    Linked(u8),
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.packed.len()
    }

    pub(super) fn number(&self, index: usize) -> Option<u32> {
        self.packed.get(index).map(|field| field.number)
    }

    pub(super) fn label(&self, index: usize) -> Label {
        self.packed[index].label
    }

    /// By itself: each field of each record is asked for it, and to find how it is shown too costs a twentieth of a plan.
    pub(super) fn kind(&self, index: usize) -> Kind {
        match self.packed[index].form {
            Form::Plain(kind, _) => KINDS[usize::from(kind)],
            Form::Linked(place) => self.linked[usize::from(place)].0,
        }
    }

    pub(super) fn name(&self, index: usize) -> &'static str {
        let (start, len) = self.packed[index].name;
        let start = usize::from(start);
        &self.names[start..start + usize::from(len)]
    }

    pub(super) fn get(&self, index: usize) -> Field {
        let show = match self.packed[index].form {
            Form::Plain(_, show) => SHOWS[usize::from(show)],
            Form::Linked(place) => self.linked[usize::from(place)].1,
        };
        Field {
            number: self.packed[index].number,
            name: self.name(index),
            label: self.label(index),
            kind: self.kind(index),
            show,
        }
    }
}

/// The codes of a field that has no address but that of its name.
const fn codes(field: &Field) -> Option<(u8, u8)> {
    let kind = match field.kind {
        Kind::Bool => 0,
        Kind::Int => 1,
        Kind::Sint => 2,
        Kind::Uint => 3,
        Kind::Fixed64 => 4,
        Kind::String => 5,
        Kind::Text => 6,
        Kind::Bytes => 7,
        Kind::Enum(_) | Kind::Message(_) => return None,
    };
    let show = match field.show {
        Show::Plain => 0,
        Show::Hex => 1,
        Show::Dev => 2,
        Show::Odev => 3,
        Show::Ip => 4,
        Show::SocketName => 5,
        Show::Flags(_) | Show::Dict(_) => return None,
    };
    Some((kind, show))
}

/// How many fields have an address.
pub(crate) const fn count_linked(fields: &[Field]) -> usize {
    let (mut count, mut at) = (0, 0);
    while at < fields.len() {
        count += codes(&fields[at]).is_none() as usize;
        at += 1;
    }
    count
}

/// What these have.
pub(crate) const fn linked<const N: usize>(fields: &[Field]) -> [(Kind, Show); N] {
    let mut linked = [(Kind::Bool, Show::Plain); N];
    let (mut count, mut at) = (0, 0);
    while at < fields.len() {
        if codes(&fields[at]).is_none() {
            linked[count] = (fields[at].kind, fields[at].show);
            count += 1;
        }
        at += 1;
    }
    linked
}

/// Bytes of all names.
pub(crate) const fn len_of_names(fields: &[Field]) -> usize {
    let (mut len, mut at) = (0, 0);
    while at < fields.len() {
        len += fields[at].name.len();
        at += 1;
    }
    len
}

/// All names.
pub(crate) const fn names<const N: usize>(fields: &[Field]) -> [u8; N] {
    let mut names = [0; N];
    let (mut len, mut at) = (0, 0);
    while at < fields.len() {
        let name = fields[at].name.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            names[len] = name[byte];
            len += 1;
            byte += 1;
        }
        at += 1;
    }
    names
}

/// What needs no address.
pub(crate) const fn packed<const N: usize>(fields: &[Field]) -> [Packed; N] {
    const NONE: Packed = Packed {
        number: 0,
        name: (0, 0),
        label: Label::Optional,
        form: Form::Linked(0),
    };
    let mut packed = [NONE; N];
    let (mut names, mut linked, mut at) = (0, 0, 0);
    while at < N {
        let field = &fields[at];
        let len = field.name.len();
        assert!(names + len <= u16::MAX as usize && len <= u8::MAX as usize && at < 256);
        packed[at] = Packed {
            number: field.number,
            name: (names as u16, len as u8),
            label: field.label,
            form: match codes(field) {
                Some((kind, show)) => Form::Plain(kind, show),
                None => Form::Linked(linked),
            },
        };
        linked += codes(field).is_none() as u8;
        names += len;
        at += 1;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn field(number: u32, name: &'static str, kind: Kind, show: Show) -> Field {
        let label = Label::Repeated;
        Field {
            number,
            name,
            label,
            kind,
            show,
        }
    }

    #[test]
    fn each_field_is_told_again() {
        const FIELDS: &[Field] = &[
            field(1, "a", Kind::Bool, Show::Plain),
            field(7, "bc", Kind::Int, Show::Hex),
            field(3, "", Kind::Enum(&[(4, "four")]), Show::Plain),
            field(4, "d", Kind::Sint, Show::Dev),
            field(1000, "efg", Kind::Uint, Show::Flags(&[(1, "ONE")])),
            field(5, "h", Kind::Fixed64, Show::Odev),
            field(6, "i", Kind::String, Show::Ip),
            field(8, "j", Kind::Text, Show::SocketName),
            field(9, "k", Kind::Bytes, Show::Dict(&[(2, "TWO")])),
            field(10, "l", Kind::Uint, Show::Plain),
            field(11, "m", Kind::Bytes, Show::Plain),
        ];
        static PACKED: [Packed; FIELDS.len()] = packed(FIELDS);
        static LINKED: [(Kind, Show); count_linked(FIELDS)] = linked(FIELDS);
        const NAMES: [u8; len_of_names(FIELDS)] = names(FIELDS);
        let fields = Fields {
            packed: &PACKED,
            names: std::str::from_utf8(&NAMES).unwrap(),
            linked: &LINKED,
        };
        assert_eq!((fields.len(), LINKED.len()), (FIELDS.len(), 3));
        assert_eq!(fields.number(FIELDS.len()), None);
        for (index, field) in FIELDS.iter().enumerate() {
            assert_eq!(format!("{:?}", fields.get(index)), format!("{field:?}"));
            assert_eq!(fields.number(index), Some(field.number));
        }
        assert_eq!(size_of::<Packed>(), 12);
    }
}
