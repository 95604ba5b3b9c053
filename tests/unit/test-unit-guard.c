/* qcow2ext: a decoder that does too much faults at once.
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * The hostile tests and the fuzzers decode between guard pages.  Here each
 * library is told of one byte too much, which must end the process, and what is
 * so, which must not.
 */

#include "build-config.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <zlib.h>
#include <zstd.h>
#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#include "data/decoder.h"
#include "disk/format.h"
#include "guard-decoder.h"

#define CLUSTER 65536

static bool use_libdeflate;

#ifdef HAVE_LIBDEFLATE
enum libdeflate_result __real_libdeflate_deflate_decompress
  (struct libdeflate_decompressor *d, const void *in, size_t in_size,
   void *out, size_t out_size, size_t *actual);
enum libdeflate_result __wrap_libdeflate_deflate_decompress
  (struct libdeflate_decompressor *d, const void *in, size_t in_size,
   void *out, size_t out_size, size_t *actual);

enum libdeflate_result
__wrap_libdeflate_deflate_decompress (struct libdeflate_decompressor *d,
                                      const void *in, size_t in_size,
                                      void *out, size_t out_size,
                                      size_t *actual)
{
  if (!use_libdeflate)
    return LIBDEFLATE_BAD_DATA;
  return __real_libdeflate_deflate_decompress (d, in, in_size, out, out_size,
                                               actual);
}
#endif

static size_t
compress_deflate (const uint8_t *plain, size_t size, uint8_t *packed,
                  size_t room)
{
  z_stream z = { 0 };

  if (deflateInit2 (&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    abort ();
  z.next_in = (uint8_t *) plain;
  z.avail_in = size;
  z.next_out = packed;
  z.avail_out = room;
  if (deflate (&z, Z_FINISH) != Z_STREAM_END)
    abort ();
  deflateEnd (&z);
  return room - z.avail_out;
}

/* Decodes in a child.  Returns whether that ended well. */
static bool
survives (enum guard_lie lie, unsigned type, int end, const uint8_t *packed,
          size_t size, size_t out_size)
{
  int status;
  pid_t pid;

  fflush (stdout);
  pid = fork ();
  if (pid == 0) {
    static uint8_t out[2 * CLUSTER];
    const struct rlimit no_core = { 0 };
    struct decoder *d = decoder_new ();

    setrlimit (RLIMIT_CORE, &no_core);
    if (freopen ("/dev/null", "w", stderr) == NULL) /* of a sanitizer */
      _exit (2);
    guard_end = end;
    guard_lie = lie;
    decoder_run (d, type, packed, size, out, out_size);
    _exit (0);
  }
  if (pid < 0 || waitpid (pid, &status, 0) != pid)
    abort ();
  return WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

int
main (void)
{
  static const struct {
    const char *name;
    unsigned type;
    bool libdeflate;
  } decoders[] = {
    { "zlib", QCOW2_COMPRESSION_ZLIB, false },
#ifdef HAVE_LIBDEFLATE
    { "libdeflate", QCOW2_COMPRESSION_ZLIB, true },
#endif
    { "zstd", QCOW2_COMPRESSION_ZSTD, false },
  };
  static uint8_t plain[CLUSTER + 100], packed[2 * CLUSTER];
  unsigned failures = 0, faults = 0;

  for (size_t i = 0; i < sizeof plain; i++)
    plain[i] = (i * i >> 7) ^ i;

  for (size_t i = 0; i < sizeof decoders / sizeof decoders[0]; i++) {
    const unsigned type = decoders[i].type;
    size_t size;

    use_libdeflate = decoders[i].libdeflate;
    size = type == QCOW2_COMPRESSION_ZSTD
      ? ZSTD_compress (packed, sizeof packed, plain, sizeof plain, 3)
      : compress_deflate (plain, sizeof plain, packed, sizeof packed);

    /* The data is more than fits, and its end is missing. */
    const struct {
      const char *name;
      enum guard_lie lie;
      int end;
      size_t size, out_size;
    } tries[] = {
      { "the end", GUARD_NO_LIE, 1, size, CLUSTER },
      { "the beginning", GUARD_NO_LIE, 0, size, CLUSTER },
      { "too little input", GUARD_NO_LIE, 1, size - 1, sizeof plain },
      { "write past output", GUARD_OUTPUT_IS_LONGER, 1, size, CLUSTER },
      { "write before output", GUARD_OUTPUT_BEGINS_BEFORE, 0, size, CLUSTER },
      { "read past input", GUARD_INPUT_IS_LONGER, 1, size - 1, sizeof plain },
    };

    for (size_t j = 0; j < sizeof tries / sizeof tries[0]; j++) {
      const bool fine = survives (tries[j].lie, type, tries[j].end,
                                  packed, tries[j].size, tries[j].out_size);

      faults += !fine;
      if (fine == (tries[j].lie != GUARD_NO_LIE)) {
        failures++;
        printf ("FAIL: %s, %s: %s\n", decoders[i].name,
                tries[j].name, fine ? "nothing happens" : "it faults");
      }
    }
  }
  printf ("%u faults, %u failures\n", faults, failures);
  return failures || faults == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
