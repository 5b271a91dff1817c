// What the test programs share: a failed expectation ends the program.
#ifndef CHECKS_H
#define CHECKS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ldm_ort.h"

#define EXPECT(condition)                                                          \
  do {                                                                             \
    if (!(condition)) {                                                            \
      fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                     \
    }                                                                              \
  } while (0)

static const LdmApi *ldm;

// Requires success.
static void done(LdmStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "kind %d: %s\n", (int)ldm->status_kind(status), ldm->status_message(status));
  exit(1);
}

// Requires an error of a kind, whose message names something.
static void refused(LdmStatus *status, LdmErrorKind kind, const char *names) {
  EXPECT(status != NULL);
  if (ldm->status_kind(status) != kind || strstr(ldm->status_message(status), names) == NULL) {
    fprintf(stderr, "expected kind %d naming %s, found kind %d: %s\n", (int)kind, names,
            (int)ldm->status_kind(status), ldm->status_message(status));
    exit(1);
  }
  ldm->status_release(status);
}

static inline LdmEngine *an_engine(void) {
  LdmEngine *engine = NULL;
  done(ldm->engine_create("{\"graph_cache\": false, \"offline\": true}", NULL, &engine));
  return engine;
}

static inline LdmPipeline *open_path(const LdmEngine *engine, const char *path) {
  LdmPipeline *pipeline = NULL;
  done(ldm->pipeline_open(engine, path, "{\"threads\": 1}", NULL, NULL, NULL, &pipeline));
  return pipeline;
}

#endif
