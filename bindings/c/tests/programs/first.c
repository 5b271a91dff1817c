// usage: first PIPELINE IMAGE.png: writes the pipeline's image, as the guide to C shows it, and checks what comes with it.
#include "checks.h"

struct seen {
  int steps, previews, images, done, loading;
  char last[256];
};

static void observe(const LdmEvent *event, void *user) {
  struct seen *seen = user;
  EXPECT(event->json[0] == '{' && strstr(event->json, "\"event\":") != NULL);
  switch (event->kind) {
    case LDM_EVENT_STEP:
      EXPECT(event->step == (uint32_t)++seen->steps && event->steps == 3 && event->image == NULL);
      break;
    case LDM_EVENT_PREVIEW:
      EXPECT(event->image->rgb_length == (size_t)3 * event->image->width * event->image->height);
      seen->previews++;
      break;
    case LDM_EVENT_IMAGE:
      EXPECT(event->image->rgb != NULL && event->image->record == NULL);
      seen->images++;
      break;
    case LDM_EVENT_LOADING: seen->loading++; break;
    case LDM_EVENT_DONE: seen->done++; break;
    default: break;
  }
}

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  EXPECT(ldm_get_api(0) == NULL && ldm_get_api(99) == NULL);
  ldm = ldm_get_api(LDM_API_VERSION);
  EXPECT(ldm != NULL && ldm->version == 1 && strcmp(ldm->library_version(), "") != 0);
  EXPECT(ldm->status_kind(NULL) == LDM_OK && strcmp(ldm->status_message(NULL), "") == 0);
  LdmEngine *engine = an_engine();
  struct seen seen = {0};
  LdmPipeline *pipeline = NULL;
  done(ldm->pipeline_open(engine, argv[1], NULL, NULL, observe, &seen, &pipeline));
  ldm->engine_release(engine);  // A pipeline outlives its engine.
  EXPECT(seen.loading > 0 && strncmp(ldm->pipeline_runtime_version(pipeline), "1.", 2) == 0);
  LdmImages *images = NULL;
  done(ldm->pipeline_run(pipeline, "{\"preview\": 1}", NULL, 0, NULL, observe, &seen, &images));
  EXPECT(seen.steps == 3 && seen.previews >= 2 && seen.images == 1 && seen.done == 1);
  EXPECT(ldm->images_count(images) == 1 && ldm->images_get(images, 1) == NULL);
  const LdmImage *image = ldm->images_get(images, 0);
  EXPECT(image == ldm->images_get(images, 0));
  EXPECT(image->width == 64 && image->height == 64 && image->rgb_length == 3 * 64 * 64 && image->seed == 4);
  EXPECT(strstr(image->record, "\"seed\":4") != NULL);

  // The same image again, and encoded.
  LdmImages *again = NULL;
  done(ldm->pipeline_run(pipeline, NULL, NULL, 0, NULL, NULL, NULL, &again));
  EXPECT(memcmp(image->rgb, ldm->images_get(again, 0)->rgb, image->rgb_length) == 0);
  ldm->images_release(images);
  const uint8_t *bytes = NULL, *jpeg = NULL;
  size_t length = 0, jpeg_length = 0;
  done(ldm->images_encode(again, 0, "jpeg", 80, &jpeg, &jpeg_length));
  EXPECT(jpeg_length > 100 && jpeg[0] == 0xff && jpeg[1] == 0xd8);
  done(ldm->images_encode(again, 0, "webp", 0, &bytes, &length));
  EXPECT(memcmp(bytes, "RIFF", 4) == 0);
  done(ldm->images_encode(again, 0, "png", 0, &bytes, &length));
  EXPECT(jpeg[0] == 0xff);  // What was encoded before stays.
  refused(ldm->images_encode(again, 0, "gif", 0, &bytes, &length), LDM_INVALID_REQUEST, "gif");
  EXPECT(bytes == NULL && length == 0);
  refused(ldm->images_encode(again, 0, "jpeg", 101, &bytes, &length), LDM_INVALID_REQUEST, "101");
  refused(ldm->images_encode(again, 0, "png", 80, &bytes, &length), LDM_INVALID_REQUEST, "lossless");
  refused(ldm->images_encode(again, 7, "png", 0, &bytes, &length), LDM_INVALID_REQUEST, "7");
  done(ldm->images_encode(again, 0, "png", 0, &bytes, &length));
  FILE *file = fopen(argv[2], "wb");
  EXPECT(file != NULL && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);

  // Input images in memory choose the task: pixels, and an encoded file.
  const LdmImage *start = ldm->images_get(again, 0);
  LdmInput pixels = {"image", start->rgb, start->rgb_length, start->width, start->height};
  LdmInput encoded = {"image", bytes, length, 0, 0};
  LdmImages *from_pixels = NULL, *from_file = NULL;
  const char *request = "{\"prompt\": \"a dog\", \"strength\": 0.7}";
  done(ldm->pipeline_run(pipeline, request, &pixels, 1, NULL, NULL, NULL, &from_pixels));
  done(ldm->pipeline_run(pipeline, request, &encoded, 1, NULL, NULL, NULL, &from_file));
  EXPECT(strstr(ldm->images_get(from_file, 0)->record, "image-to-image") != NULL);
  EXPECT(memcmp(ldm->images_get(from_pixels, 0)->rgb, ldm->images_get(from_file, 0)->rgb, start->rgb_length) == 0);
  ldm->images_release(from_pixels);
  ldm->images_release(from_file);
  ldm->images_release(again);
  ldm->pipeline_release(pipeline);
  return 0;
}
