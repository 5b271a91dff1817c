//! Models in a row that do not go together.

use super::Row;

const REFINE: &str = "\
[model]
path = 'MODEL'

[task.text-to-image]
prompt = 'a red circle'

[run]
steps = 5
denoising_end = 0.6
seed = 1

[output]
dir = 'out'

[[stage]]
input = 'latents'

[stage.model]
path = 'FIXTURES/../families/refiner'

[stage.task.image-to-image]

[stage.run]
steps = 5
denoising_start = 0.6
";

pub fn rows() -> Vec<Row> {
    let row = |name| Row::new(name).base(REFINE).model("../families/xl");
    vec![
        row("an image asked of what begins")
            .change("[task.text-to-image]", "[task.image-to-image]")
            .says(&["pipeline.toml:4: task.image-to-image.image: missing", "the path of an image"]),
        row("an unknown key of a stage")
            .change("denoising_start = 0.6", "denoising_strat = 0.6")
            .says(&["pipeline.toml:25: stage[0].run.denoising_strat: unknown key", "`denoising_start`"]),
        row("a stage without a model")
            .change("path = 'FIXTURES/../families/refiner'", "")
            .says(&["pipeline.toml:18: stage[0].model.path: missing"]),
        row("a stage that begins with noise")
            .change("[stage.task.image-to-image]", "[stage.task.text-to-image]")
            .change("input = 'latents'\n", "")
            .says(&["pipeline.toml:20: stage[0].task.text-to-image: begins with noise", "would be lost"]),
        row("a stage with an image of its own")
            .change("[stage.task.image-to-image]", "[stage.task.image-to-image]\nimage = 'in.png'")
            .says(&["stage[0].task.image-to-image: begins with its own image", "leave image out"]),
        row("a width that the model of a stage does not take")
            .change("input = 'latents'", "input = 'image'")
            .change("denoising_start = 0.6", "width = 33")
            .says(&["stage[0]: run.width: 33 is not a multiple of"]),
        row("latents at another width").change("denoising_start = 0.6", "denoising_start = 0.6\nwidth = 64").says(&[
            "stage[0]: input: latents keep their size, and 64×32",
            "32×32",
            "input = \"image\"",
        ]),
        row("latents of another model").change("families/refiner", "models/sd1").says(&[
            "stage[0]: input: the latents before it (KL autoencoder, 4 channels",
            "scaled by 0.13025",
            "scaled by 0.18215",
        ]),
        row("latents for a task that starts from an image")
            .change("[stage.task.image-to-image]", "[stage.task.instruct]")
            .says(&["pipeline.toml:16: stage[0].input: instruct starts from an image"]),
        row("a stage's directory that is not there")
            .change("families/refiner", "families/nowhere")
            .says(&["stage[0]: ", "families/nowhere"]),
        row("problems of every stage at once")
            .change("steps = 5\ndenoising_end = 0.6", "steps = 5\nwidth = 33")
            .change("input = 'latents'", "input = 'image'")
            .change("[stage.run]\nsteps = 5\ndenoising_start = 0.6", "[stage.run]\nsteps = 5\nheight = 35")
            .says(&["run.width: 33 is not a multiple", "stage[0]: run.height: 35 is not a multiple"]),
        row("a model that fails in a stage")
            .model("sd1")
            .change("denoising_end = 0.6\n", "")
            .change("input = 'latents'", "input = 'image'")
            .change(
                "path = 'FIXTURES/../families/refiner'",
                "path = 'FIXTURES/sd1'\nunet.graph = 'FIXTURES/variants/unet-nan.onnx'",
            )
            .change("denoising_start = 0.6", "")
            .fails()
            .unseen_by_check()
            .says(&["stage[0]: ", "non-finite"]),
    ]
}
