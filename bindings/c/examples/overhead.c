// The C part of scripts/bindings/overhead.py: prints the seconds and the CPU seconds of calls of a pipeline.
// usage: overhead PIPELINE CALLS
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ldm_ort.h"

static const LdmApi *ldm;

static void done(LdmStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", ldm->status_message(status));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  ldm = ldm_get_api(LDM_API_VERSION);
  LdmEngine *engine = NULL;
  LdmPipeline *pipeline = NULL;
  done(ldm->engine_create(NULL, NULL, &engine));
  done(ldm->pipeline_open(engine, argv[1], NULL, NULL, NULL, NULL, &pipeline));
  for (int call = -1; call < atoi(argv[2]); call++) {  // The first one loads graphs.
    char request[64];
    LdmImages *images = NULL;
    const double started = now(), cpu = (double)clock() / CLOCKS_PER_SEC;
    snprintf(request, sizeof request, "{\"seed\": %d}", call < 0 ? 0 : call);
    done(ldm->pipeline_run(pipeline, request, NULL, 0, NULL, NULL, NULL, &images));
    const LdmImage *image = ldm->images_get(images, 0);
    const unsigned pixel = image->rgb[image->rgb_length - 1];
    if (call >= 0) printf("%.9f %.9f %u\n", now() - started, (double)clock() / CLOCKS_PER_SEC - cpu, pixel);
    ldm->images_release(images);
  }
  ldm->pipeline_release(pipeline);
  ldm->engine_release(engine);
  return 0;
}
