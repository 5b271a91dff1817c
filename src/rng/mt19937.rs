//! The Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998), seeded as its reference `init_genrand` is.

const N: usize = 624;
const M: usize = 397;

/// The generator, producing its 32-bit words in blocks of 624.
#[derive(Debug, Clone)]
pub(super) struct Mt19937 {
    state: [u32; N],
    words: [u32; N],
    used: usize,
}

impl Mt19937 {
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [0; N];
        let mut last = seed;
        for (i, slot) in state.iter_mut().enumerate() {
            if i > 0 {
                last = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
            }
            *slot = last;
        }
        Self { state, words: [0; N], used: N }
    }

    /// Returns the next words of the stream, between one and `at_most`, which must not be 0.
    pub(super) fn take(&mut self, at_most: usize) -> &[u32] {
        if self.used == N {
            self.refill();
        }
        let begin = self.used;
        self.used = (begin + at_most).min(N);
        &self.words[begin..self.used]
    }

    /// Returns the next word of the stream.
    pub(super) fn word(&mut self) -> u32 {
        self.take(1)[0]
    }

    /// Advances the recurrence by 624 words. The new state goes to a second array, in ranges no longer than the
    /// recurrence's reach, so that each range is a loop without dependencies.
    fn refill(&mut self) {
        let old = &self.state;
        let mut new = [0; N];
        twist(&mut new[..N - M], &old[M..], &old[..N - M], &old[1..]);
        for begin in [N - M, 2 * (N - M)] {
            let (done, rest) = new.split_at_mut(begin);
            let end = (begin + N - M).min(N - 1);
            twist(&mut rest[..end - begin], &done[begin - (N - M)..], &old[begin..end], &old[begin + 1..]);
        }
        new[N - 1] = new[M - 1] ^ mix(old[N - 1], new[0]);
        self.state = new;

        for (word, &s) in self.words.iter_mut().zip(&self.state) {
            let mut y = s;
            y ^= y >> 11;
            y ^= (y << 7) & 0x9d2c_5680;
            y ^= (y << 15) & 0xefc6_0000;
            *word = y ^ (y >> 18);
        }
        self.used = 0;
    }
}

fn twist(out: &mut [u32], far: &[u32], here: &[u32], next: &[u32]) {
    for (((out, &far), &here), &next) in out.iter_mut().zip(far).zip(here).zip(next) {
        *out = far ^ mix(here, next);
    }
}

fn mix(here: u32, next: u32) -> u32 {
    let y = (here & 0x8000_0000) | (next & 0x7fff_ffff);
    (y >> 1) ^ ((y & 1).wrapping_neg() & 0x9908_b0df)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C++ standard fixes the 10,000th word of the default-seeded generator, [rand.predef].
    #[test]
    fn ten_thousandth_word_is_the_standards() {
        let mut mt = Mt19937::new(5489);
        for _ in 0..9999 {
            mt.word();
        }
        assert_eq!(mt.word(), 4_123_659_995);
    }

    #[test]
    fn taking_in_pieces_gives_the_same_stream() {
        let mut whole = Mt19937::new(7);
        let mut pieces = Mt19937::new(7);
        for n in (1..40).cycle().take(200) {
            let mut got = Vec::new();
            while got.len() < n {
                got.extend_from_slice(pieces.take(n - got.len()));
            }
            let want: Vec<u32> = (0..n).map(|_| whole.word()).collect();
            assert_eq!(got, want);
        }
    }
}
