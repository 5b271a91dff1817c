// usage: old_host PIPELINE: a host whose ONNX Runtime is too old.
#include "checks.h"

static const void *no_api(uint32_t version) { return version <= 17 ? "" : NULL; }
static const char *old_version(void) { return "1.17.3"; }

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  ldm = ldm_get_api(LDM_API_VERSION);
  const struct {
    const void *(*get_api)(uint32_t);
    const char *(*version)(void);
  } base = {no_api, old_version};
  LdmEngine *engine = NULL;
  LdmPipeline *pipeline = NULL;
  done(ldm->engine_create(NULL, &base, &engine));
  for (int i = 0; i < 2; i++) {
    refused(ldm->pipeline_open(engine, argv[1], NULL, NULL, NULL, NULL, &pipeline), LDM_PROVIDER, "1.17.3");
    refused(ldm->pipeline_open(engine, argv[1], NULL, NULL, NULL, NULL, &pipeline), LDM_PROVIDER, "or newer");
  }
  ldm->engine_release(engine);
  return 0;
}
