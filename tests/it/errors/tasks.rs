//! Mistakes in what tasks other than plain ones are given, and tasks asked of models that cannot do them.

use super::Row;
use crate::common::models;

const CLASS: &str = "\
[model]
path = 'MODEL'

[task.class-conditional]
class = 3
guidance_scale = 2.0

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

const INPAINT: &str = "\
[model]
path = 'MODEL'

[task.inpaint]
prompt = 'a red circle'
image = 'in.png'
mask = 'mask.png'

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

const LAYOUT: &str = "\
[model]
path = 'MODEL'

[task.conditional]

[[condition]]
as = 'tokens'
graph = 'layout_encoder'
boxes = [{ class = 3, box = [0.1, 0.2, 0.5, 0.9] }]

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

const LABELS: &str = "\
[model]
path = 'MODEL'

[task.conditional]

[[condition]]
as = 'channels'
graph = 'label_encoder'
label_map = 'labels.png'

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

const UPSCALE: &str = "\
[model]
path = 'MODEL'

[task.super-resolution]
prompt = 'a red circle'
image = 'in.png'
noise_level = 20

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

const CONTROL: &str = "\
[model]
path = 'MODEL'

[task.text-to-image]
prompt = 'a red circle'

[[control]]
image = 'in.png'

[run]
steps = 2
seed = 1

[output]
dir = 'out'
";

pub fn rows() -> Vec<Row> {
    let mut rows = classes();
    rows.extend(cuts());
    rows.extend(images());
    rows.extend(conditions());
    rows.extend(controls());
    rows.extend(prompts());
    rows
}

fn cuts() -> Vec<Row> {
    vec![
        Row::new("a branch that there is not").add("[cache.deepcache]\nbranch = 4\n").says(&[
            "cache.deepcache.branch",
            "4 is asked for",
            "unet/model.onnx has 4 long skip connections",
            "from 0 to 3",
        ]),
        Row::new("a transformer to be cut").model("../families/sd3").add("[cache.deepcache]\n").says(&[
            "cache.deepcache",
            "long skip connection",
            "none was found in",
            "transformer/model.onnx",
            "[cache.spectrum]",
        ]),
        Row::new("an interval of one step").add("[cache.deepcache]\ninterval = 1\n").says(&[
            "pipeline.toml:16",
            "cache.deepcache.interval",
            "from 2 to 1000",
            "found 1",
        ]),
    ]
}

fn classes() -> Vec<Row> {
    let row = |name| Row::new(name).base(CLASS).model("../systems/class-embedder");
    vec![
        row("a class that there is not").change("class = 3", "class = 11").says(&["class 11", "classes 0 to 9"]),
        row("the null class asked for").change("class = 3", "class = 10").says(&["class 10", "classes 0 to 9"]),
        row("a class by a name nobody bears").change("class = 3", "class = 'unicorn'").says(&[
            "\"unicorn\"",
            "none of the",
            "the first are",
        ]),
        row("a class by name without names")
            .change("class = 3", "class = 'unicorn'")
            .files(|f| f.remove("model/classes.txt"))
            .says(&["names no classes", "class_names"]),
        row("a file of names that is not there")
            .change("class = 3", "class = 'unicorn'\nclass_names = 'nowhere.txt'")
            .says(&["nowhere.txt"]),
        row("guidance away from a class nobody knows")
            .files(|f| f.write("model/class_embedder/config.json", "{\"n_classes\": 11}"))
            .says(&["guidance_scale", "null class", "null_class"]),
        row("a null class beyond the table")
            .change("class = 3", "class = 3\nnull_class = 11")
            .says(&["null_class", "11 is not one of the 11 rows"]),
        row("classes for a model that reads text").model("sd1").says(&["task.class-conditional", "class_embedder"]),
        row("classes for a model without any").model("../systems/uncond-vq").says(&["takes no class", "unconditional"]),
        row("nothing for a model that wants classes")
            .change("[task.class-conditional]\nclass = 3\nguidance_scale = 2.0", "[task.unconditional]")
            .model("../systems/class-labels")
            .says(&["class_labels", "task.unconditional"]),
    ]
}

fn images() -> Vec<Row> {
    let inpaint = |name| Row::new(name).base(INPAINT);
    let upscale = |name| Row::new(name).base(UPSCALE).model("../families/upscale");
    vec![
        inpaint("no mask").files(|f| f.remove("mask.png")).says(&["mask.png", "no such file"]),
        inpaint("a mask of another shape").files(|f| f.image("mask.png", 64, 32)).says(&[
            "mask.png",
            "64×32",
            "another shape",
            "64×64",
        ]),
        inpaint("a mask with nothing to draw").files(|f| f.grey("mask.png", 64, 64, |_| 0)).says(&[
            "mask.png",
            "black all over",
            "white",
        ]),
        inpaint("a prompt for the paper's inpainting")
            .model("../systems/inpaint")
            .says(&["has a prompt", "leave the prompt out"]),
        inpaint("no prompt for Stable Diffusion's inpainting")
            .change("prompt = 'a red circle'\n", "")
            .says(&["has no prompt", "give the task a prompt"]),
        inpaint("inpainting with a model that enlarges")
            .model("../families/upscale")
            .says(&["7 channels", "task.super-resolution"]),
        upscale("more noise than the model was trained on").change("20", "999").says(&["noise_level", "999", "up to"]),
        upscale("no low_res_scheduler")
            .files(|f| f.remove("model/low_res_scheduler"))
            .says(&["low_res_scheduler/scheduler_config.json", "missing"]),
        upscale("a noise level for the paper's super-resolution")
            .model("../systems/super-resolution")
            .change("prompt = 'a red circle'\n", "")
            .says(&["noise_level", "without noise", "leave the key out"]),
        upscale("super-resolution with a plain model").model("sd1").says(&["4 channels", "task.text-to-image"]),
        Row::new("an instruction for a plain model")
            .image_to_image()
            .change("image-to-image", "instruct")
            .change("strength = 0.8\n", "")
            .says(&["4 channels", "8"]),
        Row::new("tiles that the denoiser cannot take").change("seed = 1", "tile = 9").says(&["run.tile", "9", "10"]),
    ]
}

fn conditions() -> Vec<Row> {
    let layout = |name| Row::new(name).base(LAYOUT).model("../systems/layout");
    let labels = |name| Row::new(name).base(LABELS).model("../systems/semantic");
    vec![
        layout("a graph that is not there").change("'layout_encoder'", "'layouts'").says(&[
            "condition[0].graph",
            "layouts",
            "folder of the model directory",
        ]),
        layout("a graph for something else").change("'layout_encoder'", "'unet'").says(&["unet", "condition"]),
        layout("a thing of no class").change("class = 3", "class = 12").says(&["boxes[0].class", "12", "0 to 11"]),
        layout("nothing to show")
            .change("[[condition]]\nas = 'tokens'\ngraph = 'layout_encoder'\nboxes = [{ class = 3, box = [0.1, 0.2, 0.5, 0.9] }]\n", "")
            .says(&["[[condition]]", "task.unconditional"]),
        layout("tokens for a model that reads none").model("../systems/uncond-vq").files(|f| {
            f.copy(&models().join("../systems/layout/layout_encoder"), "model/layout_encoder");
        }).says(&["tells tokens", "no input"]),
        labels("a label that there is not").files(|f| f.grey("labels.png", 32, 32, |_| 12)).says(&[
            "labels.png",
            "label 12",
            "0 to 11",
        ]),
        labels("colors for labels").files(|f| f.image("labels.png", 32, 32)).says(&["labels.png", "one channel"]),
        labels("more labels than a map has planes for")
            .files(|f| {
                f.grey("labels.png", 32, 32, |_| 0);
                f.write("model/label_encoder/config.json", "{\"n_labels\": 1000000000000}");
            })
            .says(&["1000000000000", "1024", "n_labels"]),
        labels("a configuration of another VAE, whose latents are larger")
            .files(|f| {
                f.grey("labels.png", 32, 32, |_| 0);
                for half in ["encoder", "decoder"] {
                    let config = "{\"latent_channels\": 3, \"block_out_channels\": [8, 8]}";
                    f.write(&format!("model/vqvae_{half}/config.json"), config);
                }
            })
            .says(&["vqvae_decoder/model.onnx", "64×64", "16×16", "expected 32×32"]),
        labels("no label map").says(&["labels.png", "no such file"]),
        labels("a label map cut short").files(|f| {
            f.grey("labels.png", 32, 32, |at| (at % 7) as u8);
            f.cut("labels.png", 50);
        }).says(&["labels.png", "cannot be decoded"]),
    ]
}

fn controls() -> Vec<Row> {
    let control = |name| Row::new(name).base(CONTROL).model("../families/control");
    vec![
        control("a control network for a plain model")
            .model("sd1")
            .says(&["control[0].path", "holds no control network"]),
        control("a model for control networks without one")
            .change("[[control]]\nimage = 'in.png'\n", "")
            .says(&["down_block_0_additional_residual", "[[control]]"]),
        control("a control network that is not there")
            .change("image = 'in.png'", "image = 'in.png'\npath = 'nowhere'")
            .says(&["nowhere", "no such directory"]),
        control("no image to follow").files(|f| f.remove("in.png")).says(&["in.png", "no such file"]),
        control("a role for an input that no control network has")
            .change("[task", "[model.controlnet.inputs]\nhint = 'control'\n\n[task")
            .says(&["model.controlnet.inputs.hint", "no control network of this pipeline has such an input"]),
        control("a role that an input of a control network has not the form of")
            .change("[task", "[model.controlnet.inputs]\ntimestep = 'control'\n\n[task")
            .says(&["model.controlnet.inputs.timestep", "has not the form of the control"]),
        control("a role that control networks do not have")
            .change("[task", "[model.controlnet.inputs]\ntimestep = 'class_labels'\n\n[task")
            .says(&["pipeline.toml:5: model.controlnet.inputs.timestep", "unknown role", "conditioning_scale"]),
        control("tiles beside a control network").change("seed = 1", "tile = 16").says(&["run.tile", "[[control]]"]),
    ]
}

fn prompts() -> Vec<Row> {
    vec![
        Row::new("sizes for a model that is told none")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\ncrop = [0, 8]")
            .says(&["task.text-to-image.crop", "not told", "Stable Diffusion XL"]),
        Row::new("an interval for a model that is told the guidance scale")
            .model("../families/lcm")
            .over(&["--set", "task.text-to-image.guidance_interval=[0.2, 0.8]"])
            .says(&[
                "task.text-to-image.guidance_interval",
                "guidance-distilled",
                "no unconditional branch",
                "leave guidance_interval out",
            ]),
        Row::new("an aesthetic score for the base model")
            .model("../families/xl")
            .change("prompt = 'a red circle'", "prompt = 'a red circle'\naesthetic_score = 6.0")
            .says(&["aesthetic_score", "refiner"]),
        Row::new("Stable Diffusion XL without its second encoder")
            .model("../families/xl")
            .files(|f| f.remove("model/text_encoder_2"))
            .says(&["encoder_hidden_states", "width 32", "give 16", "text_encoder_2/model.onnx"]),
    ]
}
