//! numpy's `SeedSequence`, which derives many seeds from one.

/// The number of words in torchsde's pool.
const POOL: usize = 24;

/// Computes `numpy.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=24).generate_state(1)[0]`.
///
/// Source: `numpy/random/bit_generator.pyx`; O'Neill 2015, "Developing a seed_seq Alternative".
pub(super) fn first_word(entropy: u64, spawn_key: &[u128]) -> u32 {
    let mut words = split_words(u128::from(entropy));
    if !spawn_key.is_empty() {
        words.resize(words.len().max(POOL), 0);
        words.extend(spawn_key.iter().flat_map(|key| split_words(*key)));
    }
    let mut hash = Hash { constant: 0x43b0_d7e5, factor: 0x931e_8875 };
    let mut pool: [u32; POOL] = std::array::from_fn(|i| hash.next(words.get(i).copied().unwrap_or(0)));
    for from in 0..POOL {
        for to in 0..POOL {
            if from != to {
                pool[to] = mix(pool[to], hash.next(pool[from]));
            }
        }
    }
    for word in words.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash.next(*word));
        }
    }
    Hash { constant: 0x8b51_f9dd, factor: 0x58f3_8ded }.next(pool[0])
}

/// Splits a number into words, the lowest first, at least one.
fn split_words(mut number: u128) -> Vec<u32> {
    let mut words = vec![number as u32];
    number >>= 32;
    while number > 0 {
        words.push(number as u32);
        number >>= 32;
    }
    words
}

/// A hash whose constant changes with every use.
struct Hash {
    constant: u32,
    factor: u32,
}

impl Hash {
    fn next(&mut self, word: u32) -> u32 {
        let word = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.factor);
        let word = word.wrapping_mul(self.constant);
        word ^ (word >> 16)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let word = 0xca01_f9dd_u32.wrapping_mul(x).wrapping_sub(0x4973_f715_u32.wrapping_mul(y));
    word ^ (word >> 16)
}
