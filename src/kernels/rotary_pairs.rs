//! The pairs of rotary position embeddings.

/// The numbers of a head that are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RotaryPairs {
    /// The first and the second, the third and the fourth, and so on.
    Adjacent,
    /// Each of the first half with that of the second half in the same place.
    Halves,
}

impl RotaryPairs {
    /// Its name in an attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adjacent => "adjacent",
            Self::Halves => "halves",
        }
    }

    /// The pairs of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Adjacent, Self::Halves].into_iter().find(|pairs| pairs.name() == name)
    }
}
