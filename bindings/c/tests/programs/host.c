// usage: host PIPELINE MODEL.onnx LIBRARY THREADS: a program with an ONNX Runtime of its own: an environment with a global
// thread pool, and a session on it. It hands its runtime over, runs a pipeline, and goes on with its own session.
//
// THREADS is `host` for pipelines on the host's thread pool, `own` for their own. The offsets of ONNX Runtime's functions
// (ORT_...) come from the build, so that the program needs no header of it.
#include <dirent.h>
#include <dlfcn.h>

#include "checks.h"

typedef struct OrtApiBase {
  const void *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

static const char *ort;
#define ORT(name, ...) (*(void *(*const *)(__VA_ARGS__))(const void *)(ort + ORT_##name))

static void well(void *status) {
  if (status == NULL) return;
  const char *(*message)(const void *);
  memcpy(&message, ort + ORT_GetErrorMessage, sizeof message);
  fprintf(stderr, "%s\n", message(status));
  exit(1);
}

// Threads that bear the program's name: its own and ONNX Runtime's, which names none.
static int threads_of_name(const char *name) {
  int count = 0;
  DIR *tasks = opendir("/proc/self/task");
  EXPECT(tasks != NULL);
  for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
    char path[300], comm[64] = "";
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE *file = fopen(path, "r");
    if (file == NULL) continue;
    if (fgets(comm, sizeof comm, file) != NULL && strncmp(comm, name, strlen(name)) == 0) count++;
    fclose(file);
  }
  closedir(tasks);
  return count;
}

static void *environment_of(void) {
  void *environment = NULL;
  well(ORT(CreateEnv, int, const char *, void **)(2, "asked again", &environment));
  return environment;
}

static float run_own(void *session) {
  void *memory = NULL, *value = NULL, *output = NULL;
  well(ORT(CreateCpuMemoryInfo, int, int, void **)(1, 0, &memory));
  int64_t ids[16] = {0};
  const int64_t shape[] = {1, 16};
  well(ORT(CreateTensorWithDataAsOrtValue, const void *, void *, size_t, const int64_t *, size_t, int, void **)(
      memory, ids, sizeof ids, shape, 2, ORT_INT64, &value));
  const char *const inputs[] = {"input_ids"}, *const outputs[] = {"last_hidden_state"};
  const void *const values[] = {value};
  well(ORT(Run, void *, const void *, const char *const *, const void *const *, size_t, const char *const *, size_t, void **)(
      session, NULL, inputs, values, 1, outputs, 1, &output));
  float *data = NULL;
  well(ORT(GetTensorMutableData, void *, void **)(output, (void **)&data));
  float first = data[0];
  ORT(ReleaseValue, void *)(output);
  ORT(ReleaseValue, void *)(value);
  ORT(ReleaseMemoryInfo, void *)(memory);
  return first;
}

int main(int argc, char **argv) {
  EXPECT(argc == 5);
  const int on_host = strcmp(argv[4], "host") == 0;
  ldm = ldm_get_api(LDM_API_VERSION);
  void *library = dlopen(argv[3], RTLD_NOW | RTLD_LOCAL);
  EXPECT(library != NULL);
  const OrtApiBase *(*get_base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  EXPECT(get_base != NULL);
  const OrtApiBase *base = get_base();
  ort = base->GetApi(ORT_VERSION);
  EXPECT(ort != NULL);
  void *threading = NULL, *environment = NULL, *options = NULL, *session = NULL;
  well(ORT(CreateThreadingOptions, void **)(&threading));
  well(ORT(SetGlobalIntraOpNumThreads, void *, int)(threading, 3));
  well(ORT(CreateEnvWithGlobalThreadPools, int, const char *, const void *, void **)(2, "host", threading, &environment));
  well(ORT(CreateSessionOptions, void **)(&options));
  well(ORT(DisablePerSessionThreads, void *)(options));
  well(ORT(CreateSession, const void *, const char *, const void *, void **)(environment, argv[2], options, &session));
  const float before = run_own(session);
  const int threads = threads_of_name("host");
  EXPECT(threads >= 3);

  LdmEngine *engine = NULL;
  done(ldm->engine_create(on_host ? "{\"graph_cache\": false, \"host_threads\": true}" : "{\"graph_cache\": false}", base,
                          &engine));
  LdmPipeline *pipeline = NULL;
  if (on_host)
    refused(ldm->pipeline_open(engine, argv[1], "{\"threads\": 2}", NULL, NULL, NULL, &pipeline), LDM_INVALID_REQUEST,
            "host_threads");
  done(ldm->pipeline_open(engine, argv[1], on_host ? NULL : "{\"threads\": 2}", NULL, NULL, NULL, &pipeline));
  EXPECT(strcmp(ldm->pipeline_runtime_version(pipeline), base->GetVersionString()) == 0);
  EXPECT(environment_of() == environment);
  LdmImages *images = NULL;
  done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, &images));
  EXPECT(ldm->images_count(images) == 1);
  const int during = threads_of_name("host");
  printf("%d threads of the program and ONNX Runtime before, %d with an open pipeline\n", threads, during);
  EXPECT(on_host ? during == threads : during > threads);
  EXPECT(run_own(session) == before);

  // Another library than the host's is refused.
  LdmEngine *other = NULL;
  LdmPipeline *refused_pipeline = NULL;
  done(ldm->engine_create("{\"runtime\": \"/nowhere/libonnxruntime.so\"}", NULL, &other));
  refused(ldm->pipeline_open(other, argv[1], NULL, NULL, NULL, NULL, &refused_pipeline), LDM_PROVIDER, "nowhere");
  ldm->engine_release(other);

  ldm->images_release(images);
  ldm->pipeline_release(pipeline);
  ldm->engine_release(engine);
  EXPECT(threads_of_name("host") <= threads);
  EXPECT(run_own(session) == before);
  ORT(ReleaseSession, void *)(session);
  return 0;
}
