//! The macros behind the message definitions.

/// The Rust type of a scalar wire type.
macro_rules! scalar {
    (bool) => { bool };
    (bytes) => { Vec<u8> };
    (string) => { String };
    (int32) => { i32 };
    (sint32) => { i32 };
    (int64) => { i64 };
    (sint64) => { i64 };
    (uint32) => { u32 };
    (uint64) => { u64 };
    (fixed64) => { u64 };
}

/// The [`Kind`](crate::schema::Kind) of a scalar wire type.
macro_rules! kind {
    (bool) => {
        $crate::schema::Kind::Bool
    };
    (bytes) => {
        $crate::schema::Kind::Bytes
    };
    (string) => {
        $crate::schema::Kind::String
    };
    (int32) => {
        $crate::schema::Kind::Int
    };
    (int64) => {
        $crate::schema::Kind::Int
    };
    (sint32) => {
        $crate::schema::Kind::Sint
    };
    (sint64) => {
        $crate::schema::Kind::Sint
    };
    (uint32) => {
        $crate::schema::Kind::Uint
    };
    (uint64) => {
        $crate::schema::Kind::Uint
    };
    (fixed64) => {
        $crate::schema::Kind::Fixed64
    };
}

/// How a field is shown: the part behind `as`.
macro_rules! show {
    () => {
        $crate::schema::Show::Plain
    };
    (hex) => {
        $crate::schema::Show::Hex
    };
    (dev) => {
        $crate::schema::Show::Dev
    };
    (odev) => {
        $crate::schema::Show::Odev
    };
    (ip) => {
        $crate::schema::Show::Ip
    };
    (socket_name) => {
        $crate::schema::Show::SocketName
    };
    (flags $table:ident) => {
        $crate::schema::Show::Flags(&$crate::symbols::$table)
    };
    (dict $table:ident) => {
        $crate::schema::Show::Dict(&$crate::symbols::$table)
    };
}

/// Number of a proto2 label.
macro_rules! label {
    (required) => {
        $crate::schema::Label::Required
    };
    (optional) => {
        $crate::schema::Label::Optional
    };
    (repeated) => {
        $crate::schema::Label::Repeated
    };
}

/// Defines message structs. A line is
/// `LABEL TYPE NAME = NUMBER [default VALUE] [as DISPLAY];` as in a proto2 file, where TYPE is a
/// scalar, `message T`, `enumeration T`, or `text` (a string that need not be UTF-8). A message that is seldom there may
/// be `optional boxed`, so that it takes no room in the one that it is in.
macro_rules! messages {
    ($( $(#[$doc:meta])* message $name:ident = $wire:literal { $($body:tt)* } )*) => {
        $( messages!(@field ($(#[$doc])*) $name $wire {} {} $($body)*); )*
    };

    (@field ($($doc:tt)*) $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }) => {
        $($doc)*
        #[derive(Clone, PartialEq, Eq, ::prost::Message)]
        pub struct $name { $($field)* }

        impl $crate::schema::Record for $name {
            fn schema() -> &'static $crate::schema::Schema {
                use $crate::schema::{Kind, Show, fields};
                const FIELDS: &[$crate::schema::Field] = &[$($schema)*];
                const NAMES: [u8; fields::len_of_names(FIELDS)] = fields::names(FIELDS);
                static PACKED: [fields::Packed; FIELDS.len()] = fields::packed(FIELDS);
                static LINKED: [(Kind, Show); fields::count_linked(FIELDS)] = fields::linked(FIELDS);
                static SCHEMA: $crate::schema::Schema = $crate::schema::Schema {
                    name: $wire,
                    fields: fields::Fields {
                        packed: &PACKED,
                        names: match ::std::str::from_utf8(&NAMES) {
                            Ok(names) => names,
                            Err(_) => panic!("names are made of whole names"),
                        },
                        linked: &LINKED,
                    },
                    required: $crate::schema::required(FIELDS),
                    reencode: |bytes| {
                        let message = <$name as ::prost::Message>::decode(bytes)?;
                        Ok(::prost::Message::encode_to_vec(&message))
                    },
                };
                &SCHEMA
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::schema::serialize(self, to)
            }
        }
    };

    // Sub-messages.
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* required message $ty:ident $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(message, required, tag = $no)] pub $id: $ty, }
            { $($schema)* messages!(@schema $no $id required
                ($crate::schema::Kind::Message(<$ty as $crate::schema::Record>::schema)) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* optional message $ty:ident $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(message, optional, tag = $no)] pub $id: Option<$ty>, }
            { $($schema)* messages!(@schema $no $id optional
                ($crate::schema::Kind::Message(<$ty as $crate::schema::Record>::schema)) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* optional boxed message $ty:ident $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost(message, optional, boxed, tag = $no)] pub $id: Option<Box<$ty>>, }
            { $($schema)* messages!(@schema $no $id optional
                ($crate::schema::Kind::Message(<$ty as $crate::schema::Record>::schema)) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* repeated message $ty:ident $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(message, repeated, tag = $no)] pub $id: Vec<$ty>, }
            { $($schema)* messages!(@schema $no $id repeated
                ($crate::schema::Kind::Message(<$ty as $crate::schema::Record>::schema)) ()), }
            $($rest)*);
    };

    // Enumerations.
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* required enumeration $ty:ident $id:ident = $no:tt
        $(default $default:tt)?; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost(enumeration($ty), required, tag = $no $(, default = $default)?)] pub $id: i32, }
            { $($schema)* messages!(@schema $no $id required
                ($crate::schema::Kind::Enum($ty::NAMES)) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* optional enumeration $ty:ident $id:ident = $no:tt
        $(default $default:tt)?; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost(enumeration($ty), optional, tag = $no $(, default = $default)?)] pub $id: Option<i32>, }
            { $($schema)* messages!(@schema $no $id optional
                ($crate::schema::Kind::Enum($ty::NAMES)) ()), }
            $($rest)*);
    };

    // Strings that the kernel does not promise to be UTF-8: bytes on our side.
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* required text $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(bytes, required, tag = $no)] pub $id: Vec<u8>, }
            { $($schema)* messages!(@schema $no $id required ($crate::schema::Kind::Text) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* optional text $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(bytes, optional, tag = $no)] pub $id: Option<Vec<u8>>, }
            { $($schema)* messages!(@schema $no $id optional ($crate::schema::Kind::Text) ()), }
            $($rest)*);
    };

    // Scalars. Only numbers know about packing.
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* repeated string $id:ident = $no:tt; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])* #[prost(string, repeated, tag = $no)] pub $id: Vec<String>, }
            { $($schema)* messages!(@schema $no $id repeated (kind!(string)) ()), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* repeated $scalar:ident $id:ident = $no:tt
        $(as $($show:ident)+)?; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost($scalar, repeated, packed = "false", tag = $no)] pub $id: Vec<scalar!($scalar)>, }
            { $($schema)* messages!(@schema $no $id repeated (kind!($scalar)) ($($($show)+)?)), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* required $scalar:ident $id:ident = $no:tt
        $(default $default:tt)? $(as $($show:ident)+)?; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost($scalar, required, tag = $no $(, default = $default)?)] pub $id: scalar!($scalar), }
            { $($schema)* messages!(@schema $no $id required (kind!($scalar)) ($($($show)+)?)), }
            $($rest)*);
    };
    (@field $docs:tt $name:ident $wire:literal { $($field:tt)* } { $($schema:tt)* }
        $(#[$doc:meta])* optional $scalar:ident $id:ident = $no:tt
        $(default $default:tt)? $(as $($show:ident)+)?; $($rest:tt)*) => {
        messages!(@field $docs $name $wire
            { $($field)* $(#[$doc])*
              #[prost($scalar, optional, tag = $no $(, default = $default)?)] pub $id: Option<scalar!($scalar)>, }
            { $($schema)* messages!(@schema $no $id optional (kind!($scalar)) ($($($show)+)?)), }
            $($rest)*);
    };

    (@schema $no:tt $id:ident $label:ident ($($kind:tt)*) ($($show:tt)*)) => {
        $crate::schema::Field {
            number: $no,
            name: $crate::schema::unraw(stringify!($id)),
            label: label!($label),
            kind: $($kind)*,
            show: show!($($show)*),
        }
    };
}

/// Defines proto2 enumerations; records hold them as `i32`.
macro_rules! enumerations {
    ($( $(#[$doc:meta])* enumeration $name:ident = $wire:literal {
        $( $(#[$vdoc:meta])* $variant:ident = $value:literal $text:literal; )*
    } )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ::prost::Enumeration)]
            #[repr(i32)]
            pub enum $name { $( $(#[$vdoc])* $variant = $value, )* }

            impl $name {
                /// Name of the enumeration in the published schema.
                pub const WIRE_NAME: &'static str = $wire;
                /// Each value with its name in the published schema.
                pub const NAMES: &'static [(i32, &'static str)] = &[$( ($value, $text), )*];
            }
        )*
    };
}
