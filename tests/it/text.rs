//! Text encoders alone, compared with transformers for the same prompts.

use crate::common::root;
use std::sync::Arc;

use ldm_ort::bundle::{Bundle, ComponentKind, DirectoryOverrides, TextEncoderSignature};
use ldm_ort::session::{Session, SessionOptions};
use ldm_ort::text::tokenizer::Tokenizer;
use ldm_ort::text::{EncoderOutputs, PromptCache, PromptStyle, PromptText, TextEncoder, TextEncoders};
use ldm_ort::{Cancel, Runtime, npy};

/// T5's encoder and its tokenizer, against `tests/golden/text/t5.npy` (`scripts/goldens/golden_t5.py`).
#[test]
fn t5_gives_the_states_that_transformers_gives() {
    let tests = root().join("tests");
    let bundle = Bundle::open(&tests.join("fixtures/families/sd3"), &DirectoryOverrides::default()).unwrap();
    let kind = ComponentKind::TextEncoder3;
    let component = bundle.component(kind).unwrap();
    let signature = TextEncoderSignature::resolve(component).unwrap();
    assert_eq!((signature.attention_mask.is_none(), signature.pooled.is_none()), (true, true));
    let tokenizer = Tokenizer::open(bundle.tokenizer(kind).unwrap()).unwrap();
    assert!(tokenizer.is_t5());
    let runtime =
        Runtime::load(&ldm_ort::Engine::default().runtime_options(None)).expect("an ONNX Runtime is found or fetched");
    let session = Session::open(&runtime, &component.graph.path, &SessionOptions::default()).unwrap();
    let taken = EncoderOutputs { tokens: signature.last_hidden_state.clone(), norm: None, pooled: None };
    let encoder =
        TextEncoder::new(Arc::new(tokenizer), session, signature, taken, None, PromptStyle::default()).unwrap();
    let mut encoders = TextEncoders::new(vec![(0, encoder)], None, PromptCache::default());

    let want = npy::read_f32(tests.join("golden/text/t5.npy")).unwrap();
    assert_eq!(want.shape(), [2, 48, 40]);
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let long = "the mountain in the evening light, ".repeat(9);
    for (prompt, want) in ["a red circle above a blue square", &long].into_iter().zip(want.outer_iter()) {
        let text = PromptText { text: prompt.to_owned(), later: Vec::new(), is_negative: false };
        let mut warnings = Vec::new();
        let got =
            encoders.encode(&[text], &Cancel::default(), &mut |warning| warnings.push(warning)).unwrap().remove(0);
        assert_eq!(warnings, got.warnings);
        assert_eq!((got.tokens.shape(), got.pooled.is_none()), (&[48, 40][..], true));
        assert_eq!(got.warnings.is_empty(), prompt.len() < 100, "{:?}", got.warnings);
        let apart = (&got.tokens - &want).iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(apart <= 1e-5 * largest, "{prompt:?}: {apart:e} apart of {largest}");
    }
}
