// usage: refused PIPELINE: 100 requests that are refused and everything else that can be, then the pipeline works.
#include "checks.h"

static const char *const WRONG[][2] = {
    {"", "EOF"}, {"[]", "object"}, {"{", "EOF"}, {"nonsense", "expected"}, {"{\"seed\": null}", "null"},
    {"{\"sede\": 1}", "sede"}, {"{\"model\": {\"path\": \"x\"}}", "opened"}, {"{\"device\": {}}", "opened"},
    {"{\"output\": {\"dir\": \"x\"}}", "opened"}, {"{\"steps\": 0}", "steps"}, {"{\"steps\": -1}", "steps"},
    {"{\"steps\": 1001}", "steps"}, {"{\"steps\": \"four\"}", "four"}, {"{\"steps\": 2.5}", "2.5"},
    {"{\"seed\": -1}", "seed"}, {"{\"seed\": \"x\"}", "seed"}, {"{\"width\": 63}", "width"},
    {"{\"width\": 0}", "width"}, {"{\"height\": 65}", "height"}, {"{\"images\": 0}", "images"},
    {"{\"images\": true}", "images"}, {"{\"guidance_scale\": \"high\"}", "guidance_scale"},
    {"{\"prompt\": 7}", "prompt"}, {"{\"prompt\": []}", "prompt"}, {"{\"prompt\": [1]}", "prompt"},
    {"{\"negative_prompt\": {}}", "negative_prompt"}, {"{\"strength\": 0.5}", "strength"},
    {"{\"strength\": 2, \"image\": \"x.png\"}", "strength"}, {"{\"image\": \"nowhere.png\"}", "nowhere.png"},
    {"{\"image\": 3}", "image"}, {"{\"image\": \"data:image/png;base64,%%\"}", "base64"},
    {"{\"mask\": \"nowhere.png\"}", "image"}, {"{\"scheduler\": \"eular\"}", "eular"},
    {"{\"scheduler\": 3}", "scheduler"}, {"{\"scheduler\": {\"euler\": {\"no_such_key\": 1}}}", "no_such_key"},
    {"{\"scheduler\": {\"euler\": {}, \"ddim\": {}}}", "scheduler"}, {"{\"task\": {\"paint\": {}}}", "paint"},
    {"{\"task\": 4}", "task"}, {"{\"task\": {\"inpaint\": {}}}", "image"}, {"{\"run\": {\"setps\": 3}}", "setps"},
    {"{\"run\": 3}", "run"}, {"{\"run\": {\"latents\": \"nowhere.npy\"}}", "nowhere.npy"},
    {"{\"run\": {\"noise\": \"dice\"}}", "dice"}, {"{\"run\": {\"tile\": 1}}", "tile"},
    {"{\"cache\": {\"nocache\": {}}}", "nocache"}, {"{\"preview\": \"often\"}", "often"},
    {"{\"loras\": [1.0]}", "lora"}, {"{\"control\": [{\"image\": \"x.png\"}]}", "control"},
    {"{\"condition\": [{}]}", "condition"}, {"{\"steps\": 1e9}", "steps"},
};

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  ldm = ldm_get_api(LDM_API_VERSION);
  LdmEngine *engine = an_engine();
  LdmPipeline *pipeline = open_path(engine, argv[1]);
  int count = 0;
  LdmImages *images = (LdmImages *)(size_t)1;
  for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
    refused(ldm->pipeline_check(pipeline, WRONG[i][0], NULL, 0), LDM_INVALID_REQUEST, WRONG[i][1]);
    refused(ldm->pipeline_run(pipeline, WRONG[i][0], NULL, 0, NULL, NULL, NULL, &images), LDM_INVALID_REQUEST,
            WRONG[i][1]);
    EXPECT(images == NULL);
    count += 2;
  }
  EXPECT(count >= 100);

  // Arguments.
  const uint8_t bytes[4] = {1, 2, 3, 4};
  const LdmInput inputs[] = {
      {NULL, bytes, 4, 0, 0}, {"image", NULL, 4, 0, 0}, {"image", bytes, 4, 0, 0}, {"image", bytes, 4, 2, 2},
      {"image", bytes, 0, 0, 0}, {"prompt", bytes, 3, 1, 1}, {"elsewhere.image", bytes, 3, 1, 1}, {"\xff", bytes, 4, 0, 0},
  };
  const char *const names[] = {"key", "NULL", "image", "3 * 2 * 2", "image", "in memory", "elsewhere", "UTF-8"};
  for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
    refused(ldm->pipeline_check(pipeline, NULL, &inputs[i], 1), LDM_INVALID_REQUEST, names[i]);
  refused(ldm->pipeline_check(pipeline, NULL, NULL, 3), LDM_INVALID_REQUEST, "inputs");
  refused(ldm->pipeline_check(pipeline, "{\"prompt\": \"\xff\"}", NULL, 0), LDM_INVALID_REQUEST, "UTF-8");
  refused(ldm->pipeline_check(NULL, NULL, NULL, 0), LDM_INVALID_REQUEST, "pipeline");
  refused(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, NULL), LDM_INVALID_REQUEST, "images");
  refused(ldm->engine_create(NULL, NULL, NULL), LDM_INVALID_REQUEST, "engine");
  refused(ldm->run_create(NULL), LDM_INVALID_REQUEST, "run");
  LdmEngine *none = NULL;
  refused(ldm->engine_create("{\"ofline\": true}", NULL, &none), LDM_INVALID_REQUEST, "ofline");
  EXPECT(none == NULL);

  // Pipelines.
  LdmPipeline *other = NULL;
  refused(ldm->pipeline_open(engine, "nowhere.toml", NULL, NULL, NULL, NULL, &other), LDM_INVALID_MODEL, "nowhere");
  refused(ldm->pipeline_open(engine, NULL, NULL, NULL, NULL, NULL, &other), LDM_INVALID_REQUEST, "path");
  refused(ldm->pipeline_open(engine, argv[1], "{\"provider\": \"gpu9\"}", NULL, NULL, NULL, &other), LDM_INVALID_REQUEST,
          "gpu9");
  refused(ldm->pipeline_open_toml(engine, "[model]\npath = '/'\n[task.text-to-image]\nprompt = ''", NULL, NULL, NULL, NULL,
                                  &other), LDM_INVALID_MODEL, "/");
  refused(ldm->pipeline_open_toml(engine, "model = ", NULL, NULL, NULL, NULL, &other), LDM_INVALID_REQUEST, "");
  EXPECT(other == NULL);
  ldm->status_release(NULL);
  ldm->engine_release(NULL);
  ldm->pipeline_release(NULL);
  ldm->images_release(NULL);
  ldm->run_release(NULL);
  ldm->run_cancel(NULL);
  EXPECT(ldm->images_count(NULL) == 0 && ldm->images_get(NULL, 0) == NULL);

  done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, &images));
  EXPECT(ldm->images_count(images) == 1);
  ldm->images_release(images);
  ldm->pipeline_release(pipeline);
  ldm->engine_release(engine);
  return 0;
}
