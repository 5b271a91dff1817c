// usage: threads PIPELINE: two pipelines in two threads, cancelling from a thread, from a callback and from a signal
// handler, and calls that meet.
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "checks.h"

static const LdmEngine *engine;
static const char *path;
static const LdmRun *volatile to_cancel;
static LdmImages *expected;

static void *run_four(void *unused) {
  (void)unused;
  LdmPipeline *pipeline = open_path(engine, path);
  for (int i = 0; i < 4; i++) {
    LdmImages *images = NULL;
    done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, &images));
    const LdmImage *image = ldm->images_get(images, 0), *first = ldm->images_get(expected, 0);
    EXPECT(memcmp(image->rgb, first->rgb, first->rgb_length) == 0);
    ldm->images_release(images);
  }
  ldm->pipeline_release(pipeline);
  return NULL;
}

static void *cancel_soon(void *run) {
  const struct timespec soon = {0, 50 * 1000 * 1000};
  nanosleep(&soon, NULL);
  ldm->run_cancel(run);
  return NULL;
}

static void on_alarm(int signal) {
  (void)signal;
  ldm->run_cancel(to_cancel);
}

static void cancel_at_step_two(const LdmEvent *event, void *user) {
  if (event->kind == LDM_EVENT_STEP && event->step == 2) ldm->run_cancel(user);
}

struct met {
  LdmPipeline *pipeline;
  int calls;
};

static void call_again(const LdmEvent *event, void *user) {
  struct met *met = user;
  if (event->kind != LDM_EVENT_STEP) return;
  LdmImages *images = NULL;
  refused(ldm->pipeline_run(met->pipeline, NULL, NULL, 0, NULL, NULL, NULL, &images), LDM_INVALID_REQUEST, "another request");
  met->calls++;
}

static LdmRun *a_run(void) {
  LdmRun *run = NULL;
  done(ldm->run_create(&run));
  return run;
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  ldm = ldm_get_api(LDM_API_VERSION);
  LdmEngine *own = an_engine();
  engine = own;
  path = argv[1];
  LdmPipeline *pipeline = open_path(engine, path);
  done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, &expected));
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) EXPECT(pthread_create(&threads[i], NULL, run_four, NULL) == 0);
  for (int i = 0; i < 2; i++) EXPECT(pthread_join(threads[i], NULL) == 0);

  // A thousand steps take seconds; none of these ends by itself.
  const char *endless = "{\"steps\": 1000}";
  LdmImages *images = NULL;
  LdmRun *run = a_run();
  EXPECT(pthread_create(&threads[0], NULL, cancel_soon, run) == 0);
  refused(ldm->pipeline_run(pipeline, endless, NULL, 0, run, NULL, NULL, &images), LDM_CANCELLED, "");
  EXPECT(pthread_join(threads[0], NULL) == 0 && images == NULL);
  // A run stays cancelled.
  refused(ldm->pipeline_run(pipeline, NULL, NULL, 0, run, NULL, NULL, &images), LDM_CANCELLED, "");
  ldm->run_release(run);

  run = a_run();
  refused(ldm->pipeline_run(pipeline, endless, NULL, 0, run, cancel_at_step_two, run, &images), LDM_CANCELLED, "");
  ldm->run_release(run);

  // Signals arrive on whatever thread, inside of whatever call.
  EXPECT(signal(SIGALRM, on_alarm) != SIG_ERR);
  for (int i = 0; i < 20; i++) {
    run = a_run();
    to_cancel = run;
    ualarm((useconds_t)(10000 + 3000 * i), 0);
    refused(ldm->pipeline_run(pipeline, endless, NULL, 0, run, NULL, NULL, &images), LDM_CANCELLED, "");
    ualarm(0, 0);
    to_cancel = NULL;
    ldm->run_release(run);
  }
  run = a_run();
  ldm->run_cancel(run);
  LdmPipeline *never = NULL;
  refused(ldm->pipeline_open(engine, path, NULL, run, NULL, NULL, &never), LDM_CANCELLED, "");
  EXPECT(never == NULL);
  ldm->run_release(run);

  struct met met = {pipeline, 0};
  done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, call_again, &met, &images));
  EXPECT(met.calls == 3);
  EXPECT(memcmp(ldm->images_get(images, 0)->rgb, ldm->images_get(expected, 0)->rgb, 3 * 64 * 64) == 0);
  ldm->images_release(images);
  ldm->images_release(expected);
  ldm->pipeline_release(pipeline);
  ldm->engine_release(own);
  return 0;
}
