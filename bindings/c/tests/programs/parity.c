// usage: parity PIPELINE REQUEST FORMAT QUALITY OUT [KEY=FILE]...: writes the images of a request as OUT.N.file, encoded, and
// OUT.N.rgb, their pixels. Each FILE is an input image, which is given from memory.
#include "checks.h"

#define MOST_INPUTS 4

static void write_file(const char *out, size_t index, const char *extension, const uint8_t *bytes, size_t length) {
  char path[4096];
  snprintf(path, sizeof path, "%s.%zu.%s", out, index, extension);
  FILE *file = fopen(path, "wb");
  EXPECT(file != NULL && fwrite(bytes, 1, length, file) == length && fclose(file) == 0);
}

static LdmInput read_input(char *argument) {
  char *path = strchr(argument, '=');
  EXPECT(path != NULL);
  *path++ = 0;
  FILE *file = fopen(path, "rb");
  EXPECT(file != NULL && fseek(file, 0, SEEK_END) == 0);
  const size_t length = (size_t)ftell(file);
  rewind(file);
  uint8_t *bytes = malloc(length);
  EXPECT(bytes != NULL && fread(bytes, 1, length, file) == length && fclose(file) == 0);
  return (LdmInput){argument, bytes, length, 0, 0};
}

int main(int argc, char **argv) {
  EXPECT(argc >= 6 && argc <= 6 + MOST_INPUTS);
  ldm = ldm_get_api(LDM_API_VERSION);
  LdmInput inputs[MOST_INPUTS];
  const size_t count = (size_t)argc - 6;
  for (size_t at = 0; at < count; at++) inputs[at] = read_input(argv[6 + at]);
  LdmEngine *engine = an_engine();
  LdmPipeline *pipeline = NULL;
  LdmImages *images = NULL;
  done(ldm->pipeline_open(engine, argv[1], NULL, NULL, NULL, NULL, &pipeline));
  done(ldm->pipeline_run(pipeline, argv[2], inputs, count, NULL, NULL, NULL, &images));
  for (size_t at = 0; at < ldm->images_count(images); at++) {
    const LdmImage *image = ldm->images_get(images, at);
    const uint8_t *bytes = NULL;
    size_t length = 0;
    done(ldm->images_encode(images, at, argv[3], atoi(argv[4]), &bytes, &length));
    write_file(argv[5], at, "file", bytes, length);
    write_file(argv[5], at, "rgb", image->rgb, image->rgb_length);
  }
  ldm->images_release(images);
  ldm->pipeline_release(pipeline);
  ldm->engine_release(engine);
  for (size_t at = 0; at < count; at++) free((void *)inputs[at].data);
  return 0;
}
