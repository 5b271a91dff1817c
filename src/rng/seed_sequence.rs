//! numpy's `SeedSequence`: many seeds out of one.

/// Words of the pool that torchsde's trees are made with.
const POOL: usize = 24;

/// `numpy.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=24).generate_state(1)[0]`.
///
/// Source: `numpy/random/bit_generator.pyx`; O'Neill 2015, "Developing a seed_seq Alternative".
pub(super) fn first_word(entropy: u64, spawn_key: &[u128]) -> u32 {
    let mut words = words_of(u128::from(entropy));
    if !spawn_key.is_empty() {
        words.resize(words.len().max(POOL), 0);
        words.extend(spawn_key.iter().flat_map(|key| words_of(*key)));
    }
    let mut hash = Hash { constant: 0x43b0_d7e5, factor: 0x931e_8875 };
    let mut pool: [u32; POOL] = std::array::from_fn(|i| hash.of(words.get(i).copied().unwrap_or(0)));
    for from in 0..POOL {
        for to in 0..POOL {
            if from != to {
                pool[to] = mix(pool[to], hash.of(pool[from]));
            }
        }
    }
    for word in words.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash.of(*word));
        }
    }
    Hash { constant: 0x8b51_f9dd, factor: 0x58f3_8ded }.of(pool[0])
}

/// A number's words, the lowest first, at least one.
fn words_of(mut number: u128) -> Vec<u32> {
    let mut words = vec![number as u32];
    number >>= 32;
    while number > 0 {
        words.push(number as u32);
        number >>= 32;
    }
    words
}

/// A hash that changes with every use.
struct Hash {
    constant: u32,
    factor: u32,
}

impl Hash {
    fn of(&mut self, word: u32) -> u32 {
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
