/* A load for NBD servers that costs little itself: what is measured on a small
 * machine should be the server.
 *
 * It speaks the protocol by hand.  All requests that may be sent go out in one
 * system call, and replies are not looked at beyond their headers.  One thread
 * serves all connections.
 *
 *   load --op=read --block=4096 --depth=16 --connections=4 --seconds=1 SOCKET
 *
 * prints one line of JSON: requests, seconds, and processor time in seconds of
 * the server (--pid) and of the client.
 */

#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64
#define MAX_DEPTH 64
#define SCRATCH_SIZE (256 * 1024)

/* The NBD protocol: doc/proto.md of the NBD project. */
#define OPTION_MAGIC UINT64_C (0x49484156454f5054)
#define OPTION_REPLY_MAGIC UINT64_C (0x0003e889045565a9)
#define OPT_GO 7
#define OPT_STRUCTURED_REPLY 8
#define OPT_SET_META_CONTEXT 10
#define REP_ACK 1
#define REP_INFO 3
#define REP_META_CONTEXT 4
#define REQUEST_MAGIC 0x25609513
#define SIMPLE_REPLY_MAGIC 0x67446698
#define STRUCTURED_REPLY_MAGIC 0x668e33ef
#define CMD_READ 0
#define CMD_WRITE 1
#define CMD_DISC 2
#define CMD_FLUSH 3
#define CMD_BLOCK_STATUS 7
#define REPLY_FLAG_DONE 1
#define REPLY_BLOCK_STATUS 5

struct request {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t handle;
  uint64_t offset;
  uint32_t count;
} __attribute__ ((packed));

struct simple_reply {
  uint32_t magic;
  uint32_t error;
  uint64_t handle;
} __attribute__ ((packed));

struct structured_reply {
  uint32_t magic;
  uint16_t flags;
  uint16_t type;
  uint64_t handle;
  uint32_t length;
} __attribute__ ((packed));

enum order { SEQUENTIAL, RANDOM, TOUCH };

static const char *op = "read";
static enum order order = SEQUENTIAL;
static uint64_t block = 4096, size, count, cluster = 65536;
static unsigned connections = 1, depth = 16, flush_every;
static double seconds = 1, warm;
static bool simple;
static pid_t pid;
static uint64_t seed = 1;

/* A connection. */
static struct conn {
  int fd;
  unsigned in_flight;           /* requests without a reply */

  /* What is to be sent, oldest first, and how much of the first has gone. */
  struct request queue[MAX_DEPTH];
  unsigned queue_head, queue_len;
  size_t sent;

  /* What is received: a header, of which have bytes are here, then skip bytes
   * that nobody looks at.
   */
  unsigned char header[sizeof (struct structured_reply)];
  size_t have;
  uint64_t skip;
  bool last_chunk;              /* the request is done after them */

  /* --flush-every: writes since the last flush. */
  unsigned written;
  bool flushing;

  uint64_t next, end;           /* sequential: where it is, and its part */
} conns[MAX_CONNECTIONS];

static unsigned char scratch[SCRATCH_SIZE];
static unsigned char *payload;
static uint64_t issued, done;
static uint64_t size_of_export;

static void __attribute__ ((noreturn, format (printf, 1, 2)))
die (const char *fs, ...)
{
  va_list args;

  fprintf (stderr, "load: ");
  va_start (args, fs);
  vfprintf (stderr, fs, args);
  va_end (args);
  fprintf (stderr, "\n");
  exit (EXIT_FAILURE);
}

static double
now (clockid_t clock)
{
  struct timespec ts;

  if (clock_gettime (clock, &ts) == -1)
    return 0;
  return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Processor time of all threads of the server, those that ended included. */
static double
server_time (void)
{
  clockid_t clock;

  if (pid == 0 || clock_getcpuclockid (pid, &clock) != 0)
    return 0;
  return now (clock);
}

static uint64_t
next_random (void)
{
  /* SplitMix64, by Sebastiano Vigna, in the public domain. */
  uint64_t z = (seed += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/*----------------------------------------------------------------------
 * Handshake, with blocking calls.
 */

static void
send_all (int fd, const void *buf, size_t len)
{
  const char *p = buf;

  while (len > 0) {
    const ssize_t r = send (fd, p, len, MSG_NOSIGNAL);

    if (r == -1)
      die ("send: %s", strerror (errno));
    p += r;
    len -= r;
  }
}

static void
recv_all (int fd, void *buf, size_t len)
{
  if (len == 0)
    return;
  const ssize_t r = recv (fd, buf, len, MSG_WAITALL);

  if (r == -1)
    die ("recv: %s", strerror (errno));
  if ((size_t) r != len)
    die ("the server has closed the connection");
}

/* Send an option and read the replies to it up to the last. */
static void
option (int fd, uint32_t opt, const void *data, uint32_t len)
{
  struct { uint64_t magic; uint32_t option, length; }
    __attribute__ ((packed)) head = {
      htobe64 (OPTION_MAGIC), htobe32 (opt), htobe32 (len)
    };
  struct { uint64_t magic; uint32_t option, type, length; }
    __attribute__ ((packed)) reply;
  unsigned char buf[4096];

  send_all (fd, &head, sizeof head);
  send_all (fd, data, len);
  for (;;) {
    recv_all (fd, &reply, sizeof reply);
    const uint32_t n = be32toh (reply.length), type = be32toh (reply.type);

    if (be64toh (reply.magic) != OPTION_REPLY_MAGIC || n > sizeof buf)
      die ("option %" PRIu32 ": not a reply", opt);
    recv_all (fd, buf, n);
    if (type == REP_ACK)
      return;
    if (type == REP_INFO && n == 12 && buf[0] == 0 && buf[1] == 0) {
      memcpy (&size_of_export, buf + 2, 8);
      size_of_export = be64toh (size_of_export);
    }
    else if (type != REP_INFO && type != REP_META_CONTEXT)
      die ("option %" PRIu32 ": reply %" PRIx32, opt, type);
  }
}

static int
dial (const char *path)
{
  static const char context[] =
    "\0\0\0\0" "\0\0\0\1" "\0\0\0\17" "base:allocation";
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  unsigned char greeting[18];
  const uint32_t flags = htobe32 (3); /* fixed newstyle, no zeroes */
  int fd;

  if (strlen (path) >= sizeof addr.sun_path)
    die ("%s: too long", path);
  strcpy (addr.sun_path, path);

  /* The server may be starting. */
  for (unsigned i = 0;; i++) {
    const struct timespec pause = { .tv_nsec = 200000 };

    fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd == -1)
      die ("socket: %s", strerror (errno));
    if (connect (fd, (struct sockaddr *) &addr, sizeof addr) == 0)
      break;
    if (i == 100000)
      die ("%s: %s", path, strerror (errno));
    close (fd);
    nanosleep (&pause, NULL);
  }

  recv_all (fd, greeting, sizeof greeting);
  if (memcmp (greeting, "NBDMAGICIHAVEOPT", 16) != 0)
    die ("%s: not a newstyle NBD server", path);
  send_all (fd, &flags, sizeof flags);
  if (!simple)
    option (fd, OPT_STRUCTURED_REPLY, NULL, 0);
  if (strcmp (op, "map") == 0)
    option (fd, OPT_SET_META_CONTEXT, context, sizeof context - 1);
  option (fd, OPT_GO, "\0\0\0\0\0\0", 6);
  return fd;
}

/*----------------------------------------------------------------------
 * Reads and writes.
 */

/* Where the next request goes. */
static uint64_t
next_offset (struct conn *c)
{
  static uint64_t stride;
  uint64_t at;

  switch (order) {
  case SEQUENTIAL:
    at = c->next;
    c->next += block;
    if (c->next + block > c->end)
      c->next = c->end - size / connections;
    return at;

  case RANDOM:
    return next_random () % (size / block) * block;

  case TOUCH:
    /* A permutation of the clusters, and a random block in each. */
    if (stride == 0) {
      stride = (size / cluster) * 0.618;
      for (;;) {
        uint64_t a = stride, b = size / cluster;

        while (b != 0) {
          const uint64_t r = a % b;

          a = b;
          b = r;
        }
        if (a == 1)
          break;
        stride++;
      }
    }
    at = issued * stride % (size / cluster) * cluster;
    return at + next_random () % (cluster / block) * block;
  }
  abort ();
}

static bool
may_issue (const struct conn *c)
{
  if (c->in_flight >= depth || (count != 0 && issued >= count))
    return false;
  if (flush_every == 0)
    return true;
  /* A flush goes alone. */
  return !c->flushing && (c->written < flush_every || c->in_flight == 0);
}

static void
issue (struct conn *c)
{
  struct request *r =
    &c->queue[(c->queue_head + c->queue_len++) % MAX_DEPTH];

  *r = (struct request) { .magic = htobe32 (REQUEST_MAGIC) };
  if (flush_every != 0 && c->written == flush_every) {
    r->type = htobe16 (CMD_FLUSH);
    c->flushing = true;
    c->written = 0;
  }
  else {
    r->type = htobe16 (op[0] == 'w' ? CMD_WRITE : CMD_READ);
    r->offset = htobe64 (next_offset (c));
    r->count = htobe32 (block);
    issued++;
    c->written++;
  }
  c->in_flight++;
}

/* Send as much as the socket takes. */
static void
send_some (struct conn *c)
{
  while (c->queue_len > 0) {
    struct iovec iov[2 * MAX_DEPTH];
    struct msghdr msg = { .msg_iov = iov };
    size_t skip = c->sent, n = 0;
    ssize_t r;

    for (unsigned i = 0; i < c->queue_len; i++) {
      struct request *q = &c->queue[(c->queue_head + i) % MAX_DEPTH];
      const size_t body = be16toh (q->type) == CMD_WRITE ? block : 0;

      if (skip < sizeof *q)
        iov[n++] = (struct iovec) { (char *) q + skip, sizeof *q - skip };
      skip = skip < sizeof *q ? 0 : skip - sizeof *q;
      if (body > skip)
        iov[n++] = (struct iovec) { payload + skip, body - skip };
      skip = 0;
    }
    msg.msg_iovlen = n;
    r = sendmsg (c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r == -1) {
      if (errno == EAGAIN)
        return;
      die ("sendmsg: %s", strerror (errno));
    }
    c->sent += r;
    while (c->queue_len > 0) {
      const struct request *q = &c->queue[c->queue_head];
      const size_t len =
        sizeof *q + (be16toh (q->type) == CMD_WRITE ? block : 0);

      if (c->sent < len)
        break;
      c->sent -= len;
      c->queue_head = (c->queue_head + 1) % MAX_DEPTH;
      c->queue_len--;
    }
  }
}

static void
completed (struct conn *c)
{
  c->in_flight--;
  if (c->flushing)
    c->flushing = false;
  else
    done++;
}

/* A header is complete. */
static void
parse_header (struct conn *c)
{
  struct simple_reply s;
  struct structured_reply r;

  memcpy (&s, c->header, sizeof s);
  memcpy (&r, c->header, sizeof r);
  if (be32toh (s.magic) == SIMPLE_REPLY_MAGIC) {
    if (s.error != 0)
      die ("a request failed: error %" PRIu32, be32toh (s.error));
    c->skip = op[0] == 'r' ? block : 0;
    c->last_chunk = true;
  }
  else {
    if (be16toh (r.type) & 0x8000)
      die ("a request failed: chunk %" PRIx16, be16toh (r.type));
    c->skip = be32toh (r.length);
    c->last_chunk = be16toh (r.flags) & REPLY_FLAG_DONE;
  }
  c->have = 0;
  if (c->skip == 0 && c->last_chunk)
    completed (c);
}

/* Returns false when there is nothing any more. */
static bool
recv_some (struct conn *c)
{
  const ssize_t r = recv (c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
  const unsigned char *p = scratch;
  size_t len = r;

  if (r == -1) {
    if (errno == EAGAIN)
      return false;
    die ("recv: %s", strerror (errno));
  }
  if (r == 0)
    die ("the server has closed the connection");

  while (len > 0) {
    size_t n;

    if (c->skip > 0) {
      n = c->skip < len ? c->skip : len;
      c->skip -= n;
      if (c->skip == 0 && c->last_chunk)
        completed (c);
    }
    else {
      /* The magic says how long the header is. */
      size_t want = 4;

      if (c->have >= 4) {
        uint32_t magic;

        memcpy (&magic, c->header, 4);
        if (be32toh (magic) == SIMPLE_REPLY_MAGIC)
          want = sizeof (struct simple_reply);
        else if (be32toh (magic) == STRUCTURED_REPLY_MAGIC)
          want = sizeof (struct structured_reply);
        else
          die ("not a reply");
      }
      n = want - c->have < len ? want - c->have : len;
      memcpy (c->header + c->have, p, n);
      c->have += n;
      if (c->have == want && want > 4)
        parse_header (c);
    }
    p += n;
    len -= n;
  }
  return (size_t) r == sizeof scratch;
}

static void
run_requests (const char *path)
{
  struct pollfd fds[MAX_CONNECTIONS];
  double start, end = 0, server_start, client_start;
  uint64_t done_start = 0;
  bool measuring = false, ending = false;

  payload = malloc (block);
  if (payload == NULL)
    die ("malloc: %s", strerror (errno));
  for (uint64_t i = 0; i < block; i += 8) {
    const uint64_t x = next_random ();

    memcpy (payload + i, &x, 8);
  }
  for (unsigned i = 0; i < connections; i++) {
    conns[i].fd = dial (path);
    if (size == 0)
      size = size_of_export;
    conns[i].next = size / connections * i;
    conns[i].end = conns[i].next + size / connections;
  }

  const double begin = now (CLOCK_MONOTONIC);

  start = begin;
  server_start = server_time ();
  client_start = now (CLOCK_PROCESS_CPUTIME_ID);
  for (;;) {
    bool idle = true, more = false;

    for (unsigned i = 0; i < connections; i++) {
      struct conn *c = &conns[i];

      if (!ending)
        while (may_issue (c))
          issue (c);
      send_some (c);
      fds[i].fd = c->fd;
      fds[i].events = POLLIN | (c->queue_len > 0 ? POLLOUT : 0);
      fds[i].revents = 0;
      if (c->in_flight > 0)
        idle = false;
    }
    if (idle)
      break;
    if (poll (fds, connections, 10000) <= 0)
      die ("no reply within ten seconds");
    do {
      more = false;
      for (unsigned i = 0; i < connections; i++)
        if (fds[i].revents & (POLLIN | POLLERR | POLLHUP)) {
          if (recv_some (&conns[i]))
            more = true;
          else
            fds[i].revents = 0;
        }
    } while (more);

    if (count != 0)
      continue;
    const double t = now (CLOCK_MONOTONIC);

    if (!measuring && t >= begin + warm) {
      measuring = true;
      start = t;
      done_start = done;
      server_start = server_time ();
      client_start = now (CLOCK_PROCESS_CPUTIME_ID);
    }
    if (!ending && measuring && t >= start + seconds) {
      ending = true;
      end = t;
      printf ("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, "
              "\"server_cpu\": %.6f, \"client_cpu\": %.6f}\n",
              done - done_start, end - start, server_time () - server_start,
              now (CLOCK_PROCESS_CPUTIME_ID) - client_start);
    }
  }
  if (count != 0)
    printf ("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, "
            "\"server_cpu\": %.6f, \"client_cpu\": %.6f}\n",
            done, now (CLOCK_MONOTONIC) - start, server_time () - server_start,
            now (CLOCK_PROCESS_CPUTIME_ID) - client_start);
}

/*----------------------------------------------------------------------
 * The whole map, with the largest requests that there are.
 */

static void
run_map (const char *path)
{
  const int fd = conns[0].fd = dial (path);
  uint64_t at = 0, extents = 0, requests = 0;
  uint32_t flags = UINT32_MAX;
  const double start = now (CLOCK_MONOTONIC), cpu = server_time (),
    client = now (CLOCK_PROCESS_CPUTIME_ID);

  connections = 1;
  while (at < size_of_export) {
    const uint64_t left = size_of_export - at;
    const struct request q = {
      .magic = htobe32 (REQUEST_MAGIC), .type = htobe16 (CMD_BLOCK_STATUS),
      .offset = htobe64 (at),
      .count = htobe32 (left < UINT32_C (0xffff0000) ? left
                        : UINT32_C (0xffff0000)),
    };
    struct structured_reply r;
    const uint64_t before = at;

    send_all (fd, &q, sizeof q);
    do {
      recv_all (fd, &r, sizeof r);
      uint32_t len = be32toh (r.length);

      if (be32toh (r.magic) != STRUCTURED_REPLY_MAGIC ||
          (be16toh (r.type) != REPLY_BLOCK_STATUS && len != 0))
        die ("block status: chunk %" PRIx16, be16toh (r.type));
      if (len > 0) {
        recv_all (fd, scratch, 4);
        len -= 4;
      }
      while (len > 0) {
        const uint32_t n = len < sizeof scratch ? len : sizeof scratch;

        recv_all (fd, scratch, n);
        for (uint32_t i = 0; i + 8 <= n; i += 8) {
          uint32_t e[2];

          memcpy (e, scratch + i, 8);
          at += be32toh (e[0]);
          if (be32toh (e[1]) != flags)
            extents++;
          flags = be32toh (e[1]);
        }
        len -= n;
      }
    } while (!(be16toh (r.flags) & REPLY_FLAG_DONE));
    if (at == before)
      die ("block status: nothing at %" PRIu64, at);
    requests++;
  }
  printf ("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, "
          "\"server_cpu\": %.6f, \"client_cpu\": %.6f, "
          "\"extents\": %" PRIu64 "}\n",
          requests, now (CLOCK_MONOTONIC) - start, server_time () - cpu,
          now (CLOCK_PROCESS_CPUTIME_ID) - client, extents);
}

/*----------------------------------------------------------------------*/

static uint64_t
number (const char *name, const char *value)
{
  char *end;
  const uint64_t n = strtoull (value, &end, 0);

  if (end == value || *end != '\0')
    die ("--%s=%s: not a number", name, value);
  return n;
}

int
main (int argc, char *argv[])
{
  static const struct option options[] = {
    { "op", required_argument, NULL, 'o' }, /* read, write, map */
    /* sequential; random; touch: each cluster once */
    { "order", required_argument, NULL, 'O' },
    { "block", required_argument, NULL, 'b' }, /* bytes a request */
    { "cluster", required_argument, NULL, 'C' }, /* for touch */
    { "size", required_argument, NULL, 'z' }, /* of the disk to use */
    { "connections", required_argument, NULL, 'c' },
    { "depth", required_argument, NULL, 'd' }, /* of each connection */
    { "count", required_argument, NULL, 'n' }, /* requests, or */
    { "seconds", required_argument, NULL, 's' }, /* how long */
    { "warm", required_argument, NULL, 'w' }, /* seconds not counted before */
    { "flush-every", required_argument, NULL, 'f' },
    { "simple", no_argument, NULL, 'S' }, /* no structured replies */
    { "pid", required_argument, NULL, 'p' }, /* of the server */
    { "seed", required_argument, NULL, 'r' },
    { NULL, 0, NULL, 0 },
  };
  int o, i;

  while ((o = getopt_long (argc, argv, "", options, &i)) != -1) {
    const char *name = o != '?' ? options[i].name : "";

    switch (o) {
    case 'o': op = optarg; break;
    case 'O':
      order = optarg[0] == 's' ? SEQUENTIAL
        : optarg[0] == 'r' ? RANDOM : TOUCH;
      break;
    case 'b': block = number (name, optarg); break;
    case 'C': cluster = number (name, optarg); break;
    case 'z': size = number (name, optarg); break;
    case 'c': connections = number (name, optarg); break;
    case 'd': depth = number (name, optarg); break;
    case 'n': count = number (name, optarg); break;
    case 's': seconds = strtod (optarg, NULL); break;
    case 'w': warm = strtod (optarg, NULL); break;
    case 'f': flush_every = number (name, optarg); break;
    case 'S': simple = true; break;
    case 'p': pid = number (name, optarg); break;
    case 'r': seed = number (name, optarg); break;
    default: exit (EXIT_FAILURE);
    }
  }
  if (optind != argc - 1)
    die ("say which socket");
  if (connections < 1 || connections > MAX_CONNECTIONS ||
      depth < 1 || depth > MAX_DEPTH || block < 8 || block % 8 != 0)
    die ("out of range");

  if (strcmp (op, "map") == 0)
    run_map (argv[optind]);
  else
    run_requests (argv[optind]);

  /* Leave as a client should, and wait until the server has let us go. */
  for (unsigned c = 0; c < connections; c++) {
    const struct request q = {
      .magic = htobe32 (REQUEST_MAGIC), .type = htobe16 (CMD_DISC)
    };

    send_all (conns[c].fd, &q, sizeof q);
    shutdown (conns[c].fd, SHUT_WR);
    while (recv (conns[c].fd, scratch, sizeof scratch, 0) > 0)
      ;
    close (conns[c].fd);
  }
  return EXIT_SUCCESS;
}
