//! Roles of inputs and outputs: by name, then by shape, then by element type.

use ldm_ort::bundle::{
    ControlNetSignature, DenoiserSignature, Role, TextEncoderSignature, VaeDecoderSignature, VaeEncoderKind,
    VaeEncoderSignature,
};
use ldm_ort::tensor::DType;

use super::writer::{BOOL, Dir, F16, F32, F64, I32, I64, Model, decoder, encoder, text_encoder, unet, unet_with};

fn denoiser(model: Model) -> ldm_ort::Result<DenoiserSignature> {
    DenoiserSignature::resolve(&Dir::new().graph("unet/model.onnx", model).only_component())
}

fn text(model: Model) -> ldm_ort::Result<TextEncoderSignature> {
    TextEncoderSignature::resolve(&Dir::new().graph("text_encoder/model.onnx", model).only_component())
}

fn vae_encoder(model: Model, channels: Option<usize>) -> ldm_ort::Result<VaeEncoderSignature> {
    VaeEncoderSignature::resolve(&Dir::new().graph("vae_encoder/model.onnx", model).only_component(), channels)
}

#[test]
fn timesteps_come_in_every_rank_and_type() {
    let cases = [
        ("", F32, DType::F32),
        ("1", I64, DType::I64),
        ("batch", I32, DType::I32),
        ("steps", F16, DType::F16),
        ("2", F64, DType::F64),
    ];
    for (shape, dtype, expected) in cases {
        let signature = denoiser(unet_with("batch, 4, h, w", dtype, shape)).unwrap();
        assert_eq!(signature.timestep.dtype, expected);
        assert_eq!(signature.timestep.shape.len(), usize::from(!shape.is_empty()));
        assert_eq!(signature.batch, None);
    }
}

#[test]
fn xl_inputs_are_found_by_name_and_by_shape() {
    let named = unet().input("text_embeds", F32, "batch, 1280").input("time_ids", F32, "batch, 5");
    let signature = denoiser(named).unwrap();
    assert_eq!(signature.time_ids_width(), Some(5));
    assert_eq!(signature.context_width(), Some(768));
    let unnamed = unet().input("onnx::Concat_4", F16, "1, 1280").input("onnx::Shape_5", F32, "1, 6");
    let signature = denoiser(unnamed).unwrap();
    assert_eq!(signature.input(Role::TextEmbeds).unwrap().name, "onnx::Concat_4");
    assert_eq!(signature.input(Role::TimeIds).unwrap().name, "onnx::Shape_5");
    assert_eq!(signature.batch, Some(1));
}

#[test]
fn a_mask_over_the_context_is_found_by_name_and_by_its_tokens() {
    let told = |name: &str, dtype: u64, shape: &str| unet().input(name, dtype, shape);
    for (name, dtype) in [("encoder_attention_mask", F32), ("onnx::Cast_3", I64), ("onnx::Cast_3", BOOL)] {
        let signature = denoiser(told(name, dtype, "batch, sequence")).unwrap();
        assert_eq!(signature.input(Role::ContextMask).map(|mask| mask.name.as_str()), Some(name));
    }
    let sized = told("m", I32, "batch, sequence").input("a", F32, "batch, 2").input("b", F16, "batch, 1");
    let signature = denoiser(sized).unwrap();
    assert_eq!(signature.input(Role::Resolution).map(|input| input.name.as_str()), Some("a"));
    assert_eq!(signature.input(Role::AspectRatio).map(|input| input.name.as_str()), Some("b"));
    // Of another length than the context's, or with an axis more, it is none; nor is a float without a name.
    for (name, dtype, shape) in
        [("m", I64, "batch, 77"), ("m", F32, "batch, sequence"), ("encoder_attention_mask", F32, "batch, 1, sequence")]
    {
        let refused = denoiser(told(name, dtype, shape)).unwrap_err().to_string();
        assert!(refused.contains("an input that nothing here can fill"), "{refused}");
    }
}

#[test]
fn inputs_without_known_names_are_found_by_rank() {
    let model = Model::new().input("a", F32, "2, 9, 64, 96").input("b", I64, "").input("c", F32, "2, 77, 768").output(
        "noise_pred",
        F32,
        "2, 4, 64, 96",
    );
    let signature = denoiser(model).unwrap();
    assert_eq!((signature.sample.name.as_str(), signature.timestep.name.as_str()), ("a", "b"));
    assert_eq!(signature.input(Role::Context).unwrap().name, "c");
    assert_eq!((signature.batch, signature.in_channels, signature.out_channels), (Some(2), Some(9), Some(4)));
    assert_eq!((signature.height, signature.width), (Some(64), Some(96)));
}

#[test]
fn extra_conditions_are_found() {
    let model = unet().input("timestep_cond", F32, "batch, 256").input("class_labels", I64, "batch");
    let model = model.weight("classes", &[1001, 4]).node("Gather", &["classes", "class_labels"], &["embedded"]);
    let signature = denoiser(model).unwrap();
    assert!(signature.takes(Role::TimestepCond));
    assert_eq!(signature.class_rows, Some(1001));
}

#[test]
fn leftover_switches_get_a_value() {
    let signature = denoiser(unet().input("return_dict", BOOL, "")).unwrap();
    assert_eq!(signature.constants.len(), 1);
    assert!(!signature.constants[0].value);
    let signature = text(text_encoder().input("output_hidden_states", BOOL, "")).unwrap();
    assert!(signature.switches[0].value);
    assert!(denoiser(unet().input("mystery", BOOL, "")).is_err());
}

#[test]
fn residuals_are_put_in_order() {
    for name in [|i| format!("down_block_{i}_additional_residual"), |i| format!("down_block_{i}")] {
        let mut model = unet();
        for i in (0..12).rev() {
            model = model.input(&name(i), F32, "batch, 320, h, w");
        }
        let signature = denoiser(model.input("mid_block_additional_residual", F32, "batch, 1280, h, w")).unwrap();
        let names: Vec<_> = signature.residuals.down.iter().map(|t| t.name.clone()).collect();
        assert_eq!(names, (0..12).map(name).collect::<Vec<_>>());
        assert!(signature.residuals.mid.is_some());
        assert_eq!(signature.sample.name, "sample");
    }
}

#[test]
fn what_nothing_can_fill_is_shown_in_a_table() {
    let error = denoiser(unet().input("gligen_boxes", F32, "batch, 30, 4, 2, 1")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    for part in ["gligen_boxes", "float32", "[batch, 30, 4, 2, 1]", "tried", "timestep_cond", "unet"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = denoiser(unet().input("img_ids", I64, "n, 3")).unwrap_err().to_string();
    assert!(message.contains("img_ids and txt_ids"), "{message}");
}

/// Flux as exported by Optimum, with position ids of this type and shape.
fn flux(dtype: u64, [image, text]: [&str; 2]) -> Model {
    Model::new()
        .input("hidden_states", F32, "batch, packed_height_width, 64")
        .input("timestep", F32, "step")
        .input("encoder_hidden_states", F32, "batch, sequence_length, 4096")
        .input("pooled_projections", F32, "batch, 768")
        .input("img_ids", dtype, image)
        .input("txt_ids", dtype, text)
        .output("out_hidden_states", F32, "batch, packed_height_width, 64")
}

fn transformer(model: Model) -> ldm_ort::Result<DenoiserSignature> {
    DenoiserSignature::resolve(&Dir::new().graph("transformer/model.onnx", model).only_component())
}

#[test]
fn a_packed_sample_is_told_by_its_position_ids() {
    for (dtype, shapes) in [(I64, ["hw, 3", "s, 3"]), (F32, ["batch, hw, 3", "batch, s, 3"]), (F16, ["hw, n", "s, n"])]
    {
        let signature = transformer(flux(dtype, shapes)).unwrap();
        let positions =
            [Role::ImagePositions, Role::TextPositions].map(|role| signature.input(role).unwrap().name.as_str());
        assert_eq!(positions, ["img_ids", "txt_ids"]);
        assert_eq!(
            (signature.sample.name.as_str(), signature.input(Role::TextEmbeds).unwrap().shape.len()),
            ("hidden_states", 2)
        );
        assert_eq!((signature.in_channels, signature.out_channels), (Some(16), Some(16)));
        assert_eq!((signature.height, signature.width, signature.sequence_length), (None, None, None));
        assert!(!signature.takes(Role::Guidance) && signature.is_guidance_distilled());
    }
    let told = transformer(flux(I64, ["hw, 3", "s, 3"]).input("guidance", F32, "batch")).unwrap();
    assert_eq!(told.input(Role::Guidance).unwrap().name, "guidance");
    assert!(!denoiser(unet()).unwrap().is_guidance_distilled());
    // Four values per token belong to another model.
    let message = transformer(flux(I64, ["hw, 4", "s, 4"])).unwrap_err().to_string();
    assert!(message.contains("img_ids") && message.contains("three numbers a token"), "{message}");
}

#[test]
fn a_denoiser_without_a_sample_is_refused() {
    let model = Model::new().input("x", I64, "batch, 77").output("y", F32, "batch, 4, h, w");
    let message = denoiser(model).unwrap_err().to_string();
    assert!(message.contains("no input for its sample") && message.contains("[batch, 77]"), "{message}");
    let message = denoiser(unet().output("another", F32, "b, 4, h, w")).map(|c| c.output.name);
    assert_eq!(message.unwrap(), "out_sample");
    let model = Model::new().input("sample", F32, "b, 4, h, w").input("timestep", F32, "");
    let message =
        denoiser(model.output("a", F32, "b, c, h, w").output("b", F32, "b, c, h, w")).unwrap_err().to_string();
    assert!(message.contains("2 outputs with 4 axes"), "{message}");
}

#[test]
fn free_channels_are_read_from_the_first_convolution() {
    let model = unet_with("batch, channels, height, width", I64, "1")
        .weight("conv_in", &[320, 9, 3, 3])
        .node("Cast", &["sample"], &["half"])
        .node("Conv", &["half", "conv_in"], &["features"]);
    assert_eq!(denoiser(model).unwrap().in_channels, Some(9));
}

#[test]
fn text_encoders_are_read_by_rank() {
    let model = Model::new()
        .input("input_ids", I32, "1, 77")
        .output("hidden_states.10", F32, "1, 77, 1280")
        .output("hidden_states.2", F32, "1, 77, 1280")
        .output("hidden_states.9", F32, "1, 77, 1280")
        .output("text_embeds", F32, "1, 1280")
        .output("pooler_output", F32, "1, 1280")
        .output("last_hidden_state", F32, "1, 77, 1280");
    let signature = text(model).unwrap();
    assert_eq!(signature.input_ids.dtype, DType::I32);
    assert_eq!(
        (
            signature.sequence_length,
            signature.batch,
            signature.last_hidden_state.as_ref().map(|state| state.shape[2].fixed())
        ),
        (Some(77), Some(1), Some(Some(1280)))
    );
    assert_eq!(signature.pooled.as_ref().unwrap().name, "text_embeds");
    let layers: Vec<usize> = signature.hidden_states.iter().map(|(layer, _)| *layer).collect();
    assert_eq!(layers, [2, 9, 10]);
    assert_eq!(signature.penultimate().unwrap().name, "hidden_states.9");

    let second = Model::new().input("ids", I64, "b, s").output("text_embeddings", F32, "b, 1280");
    let vector_only = text(second).unwrap();
    assert!(vector_only.last_hidden_state.is_none());
    assert_eq!(vector_only.pooled.unwrap().name, "text_embeddings");
    let neither = Model::new().input("ids", I64, "b, s").output("logits", F32, "b");
    let message = text(neither).unwrap_err().to_string();
    assert!(message.contains("neither states"), "{message}");
    let baked = Model::new().input("input_embeddings", F32, "b, s, 768").output("last_hidden_state", F32, "b, s, 768");
    assert!(text(baked).unwrap_err().to_string().contains("token ids"));
    let masked = text(text_encoder().input("attention_mask", I64, "b, s")).unwrap();
    assert!(masked.attention_mask.is_some());
}

#[test]
fn the_embedding_table_is_found_behind_its_wrapping() {
    assert_eq!(text(text_encoder()).unwrap().embedding_rows, Some(50));
    let wrapped = Model::new()
        .input("input_ids", I32, "b, s")
        .output("last_hidden_state", F32, "b, s, 8")
        .weight("half", &[49408, 1])
        .node("Cast", &["half"], &["table"])
        .node("Cast", &["input_ids"], &["wide"])
        .node("Reshape", &["wide", "shape"], &["flat"])
        .node("Gather", &["table", "flat"], &["embedded"])
        .node("Gather", &["positions", "flat_positions"], &["placed"]);
    assert_eq!(text(wrapped).unwrap().embedding_rows, Some(49408));
    let hidden = Model::new().input("input_ids", I64, "b, s").output("last_hidden_state", F32, "b, s, 8");
    assert_eq!(text(hidden).unwrap().embedding_rows, None);
}

#[test]
fn moments_are_told_from_samples() {
    let with = |name: &str, shape: &str| Model::new().input("sample", F32, "b, 3, h, w").output(name, F32, shape);
    let kind = |model, channels| vae_encoder(model, channels).unwrap().kind;
    assert_eq!(kind(with("whatever", "b, 8, h, w"), Some(4)), VaeEncoderKind::Moments);
    assert_eq!(kind(with("whatever", "b, 4, h, w"), Some(4)), VaeEncoderKind::Sample);
    assert_eq!(kind(with("latent_parameters", "b, c, h, w"), Some(4)), VaeEncoderKind::Moments);
    assert_eq!(kind(with("latent_sample", "b, c, h, w"), None), VaeEncoderKind::Sample);
    let message = vae_encoder(with("latent", "b, 6, h, w"), Some(4)).unwrap_err().to_string();
    assert!(message.contains("gives 6 channels") && message.contains("moments 8"), "{message}");
    let drawn = with("latent_sample", "b, c, h, w").node("RandomNormalLike", &["mean"], &["noise"]);
    let signature = vae_encoder(drawn, Some(4)).unwrap();
    assert!(signature.samples_inside && signature.kind == VaeEncoderKind::Sample);
    assert!(!vae_encoder(encoder(), Some(4)).unwrap().samples_inside);
}

#[test]
fn decoders_are_read() {
    let resolve =
        |model| VaeDecoderSignature::resolve(&Dir::new().graph("vae_decoder/model.onnx", model).only_component());
    let signature = resolve(decoder()).unwrap();
    assert_eq!((signature.latent_channels, signature.batch), (Some(4), None));
    let other = Model::new().input("latent", F16, "1, 16, 32, 48").output("images", F32, "1, 3, 256, 384");
    let signature = resolve(other).unwrap();
    assert_eq!((signature.batch, signature.height, signature.width), (Some(1), Some(32), Some(48)));
    assert_eq!(signature.output.name, "images");
    assert!(resolve(decoder().input("num_frames", I64, "")).unwrap_err().to_string().contains("num_frames"));
}

#[test]
fn control_networks_are_read() {
    let model = Model::new()
        .input("sample", F32, "batch, 4, h, w")
        .input("timestep", I64, "1")
        .input("encoder_hidden_states", F32, "batch, s, 768")
        .input("controlnet_cond", F32, "batch, 3, H, W")
        .input("conditioning_scale", F64, "1")
        .output("down_block_1_res_sample", F32, "b, 8, h, w")
        .output("down_block_0_res_sample", F32, "b, 8, h, w")
        .output("mid_block_res_sample", F32, "b, 8, h, w");
    let resolve =
        |model| ControlNetSignature::resolve(&Dir::new().graph("controlnet/model.onnx", model).only_component());
    let signature = resolve(model).unwrap();
    assert_eq!(signature.scale.unwrap().dtype, DType::F64);
    assert_eq!(signature.control.name, "controlnet_cond");
    assert_eq!(signature.down[0].name, "down_block_0_res_sample");
    let message = resolve(unet().input("controlnet_cond", F32, "b, 3, h, w")).unwrap_err().to_string();
    assert!(message.contains("no residuals"), "{message}");
}

/// Each word that a pipeline file may give as a role is one that the signature of that component asks for.
#[test]
fn every_role_word_is_heeded() {
    use ldm_ort::bundle::{Bundle, ComponentKind, DirectoryOverrides, role_words};
    let model = |kind: ComponentKind| match kind {
        ComponentKind::Unet => Model::new().output("out", F32, "b, 4, h, w"),
        ComponentKind::Transformer => Model::new().output("out", F32, "b, hw, 16"),
        ComponentKind::TextEncoder => Model::new().output("last_hidden_state", F32, "b, s, 8"),
        ComponentKind::VaeEncoder => Model::new().output("out", F32, "b, 8, h, w"),
        _ => Model::new().output("out", F32, "b, 3, h, w"),
    };
    let form = |kind: ComponentKind, word: &str| match word {
        "sample" if kind == ComponentKind::Transformer => (F32, "b, hw, 16"),
        "sample" | "latent" => (F32, "b, 4, h, w"),
        "img_ids" | "txt_ids" => (I64, "n, 3"),
        "guidance" => (F32, "b"),
        "timestep" => (F32, ""),
        "class_labels" => (I64, "b"),
        "context" => (F32, "b, s, 8"),
        "input_ids" | "attention_mask" | "context_mask" => (I64, "b, s"),
        "resolution" => (F32, "b, 2"),
        "aspect_ratio" => (F32, "b, 1"),
        _ => (F32, "b, 6"),
    };
    use ComponentKind as Kind;
    for kind in [Kind::Unet, Kind::Transformer, Kind::TextEncoder, Kind::VaeEncoder, Kind::VaeDecoder] {
        let mut graph = model(kind);
        let mut overrides = DirectoryOverrides::default();
        for word in role_words(kind) {
            let (dtype, shape) = form(kind, word);
            graph = graph.input(&format!("x.{word}"), dtype, shape);
            overrides.roles.entry(kind).or_default().insert(format!("x.{word}"), (*word).to_owned());
        }
        let dir = Dir::new().graph(&format!("{kind}/model.onnx"), graph);
        let bundle = Bundle::open(dir.path(), &overrides).unwrap();
        let component = bundle.component(kind).unwrap();
        let filled = match kind {
            Kind::Unet | Kind::Transformer => DenoiserSignature::resolve(component).unwrap().roles().len(),
            ComponentKind::TextEncoder => TextEncoderSignature::resolve(component).unwrap().roles().len(),
            ComponentKind::VaeEncoder => VaeEncoderSignature::resolve(component, Some(4)).unwrap().roles().len(),
            _ => VaeDecoderSignature::resolve(component).unwrap().roles().len(),
        };
        assert_eq!(filled, role_words(kind).len() + 1, "{kind}");
    }
}

#[test]
fn a_state_without_a_number_was_chosen_at_export() {
    let model = Model::new().input("input_ids", I32, "B, 77").output("text_embeddings", F32, "B, 77, 768").output(
        "hidden_states",
        F32,
        "B, 77, 768",
    );
    let signature = text(model).unwrap();
    assert_eq!(signature.penultimate().unwrap().name, "hidden_states");
    assert_eq!(signature.last_hidden_state.unwrap().name, "text_embeddings");
}
