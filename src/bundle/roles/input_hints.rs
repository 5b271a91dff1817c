//! Hints about inputs that nothing fills.

use super::table::rows;

const BUILT_IN_CONTROL_NET: &str =
    "this graph has its control network built in, which is not run; export the two apart";

/// Names of inputs that no role fills, with what to do about them.
const UNSUPPORTED: [(&str, &str); 6] = [
    ("controlnet_images", BUILT_IN_CONTROL_NET),
    ("controlnet_conds", BUILT_IN_CONTROL_NET),
    ("controlnet_scales", BUILT_IN_CONTROL_NET),
    ("conditioning_scales", BUILT_IN_CONTROL_NET),
    ("image_embeds", "image prompts (IP-Adapter) are not run; export the model without them"),
    ("input_embeddings", "this text encoder wants the embedding table outside; export it with input_ids"),
];

/// A hint about an input that has a known name and that nothing fills.
pub(super) fn hint(name: &str) -> Option<&'static str> {
    let of_role = || rows().find_map(|row| row.hint.filter(|_| row.names.contains(&name)));
    UNSUPPORTED.iter().find(|(known, _)| *known == name).map(|&(_, hint)| hint).or_else(of_role)
}
