/* A stand-in for the rknpu driver behind one node, for LD_PRELOAD: it takes the place of open, close and ioctl for that
   path and leaves everything else alone. Nothing is allocated; the domains' addresses are, by the driver's rules.

   FAKEDRM_NODE       path (default /dev/dri/renderD129); /dev/rknpu behaves as the misc device
   FAKEDRM_NAME       DRM driver name (rknpu)              FAKEDRM_VERSION   0.9.8
   FAKEDRM_ALIGNMENT  page or size                         FAKEDRM_DOMAINS   real or stub
   FAKEDRM_RAM        bytes of pages, then ENOMEM          FAKEDRM_OCCUPIED  bytes of domain 0 that others hold
   FAKEDRM_IOMMU      1 or 0                               FAKEDRM_DENY      open: EACCES
   FAKEDRM_REFUSES    flag bits that MEM_CREATE answers with EINVAL
   FAKEDRM_HANG       version, action, create or destroy: never comes back
   FAKEDRM_SLOW_MS    time that a MEM_CREATE takes
   FAKEDRM_LEDGER     file: a line per call                                                                  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DOMAINS 16
#define PAGE 4096ull
#define SPAN (1ull << 32)
#define MOST 4096

struct action { uint32_t flags, value; };
struct create {
  uint32_t handle, flags;
  uint64_t size, obj_addr, dma_addr, sram_size;
  int32_t domain;
  uint32_t core_mask;
};
struct destroy { uint32_t handle, reserved; uint64_t obj_addr; };
struct version {
  int major, minor, patch;
  size_t name_len; char *name;
  size_t date_len; char *date;
  size_t desc_len; char *desc;
};
struct buffer { uint64_t size, address; int used, domain, fd; };

static struct buffer buffers[MOST];
static int opened[64], n_opened, current_domain;

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value && *value ? value : otherwise;
}

static uint64_t amount(const char *name, uint64_t otherwise) {
  const char *value = getenv(name);
  return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

static int is_drm(void) { return strcmp(setting("FAKEDRM_NODE", ""), "/dev/rknpu") != 0; }

static void ledger(const char *format, ...) {
  const char *name = getenv("FAKEDRM_LEDGER");
  if (!name) return;
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  int (*shut)(int) = dlsym(RTLD_NEXT, "close");
  int fd = real(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd >= 0 && write(fd, line, length) != length) abort();
  if (fd >= 0) shut(fd);
}

static void hang_if(const char *what) {
  if (strcmp(setting("FAKEDRM_HANG", ""), what) != 0) return;
  ledger("hang %s\n", what);
  for (;;) pause();
}

static int fail(int error) {
  errno = error;
  return -1;
}

static int find_opened(int fd) {
  for (int i = 0; i < n_opened; i++)
    if (opened[i] == fd) return i;
  return -1;
}

static uint64_t held(void) {
  uint64_t sum = 0;
  for (int i = 0; i < MOST; i++) sum += buffers[i].used ? buffers[i].size : 0;
  return sum;
}

static int overlaps(int domain, uint64_t start, uint64_t size) {
  uint64_t others = domain == 0 ? amount("FAKEDRM_OCCUPIED", 0) : 0;
  if (others && start + size > SPAN - others) return 1; /* placed first, so at the top */
  for (int i = 0; i < MOST; i++) {
    const struct buffer *b = &buffers[i];
    if (b->used && b->domain == domain && start < b->address + b->size && b->address < start + size) return 1;
  }
  return 0;
}

/* The highest aligned address whose range is free, page 0 never; 0 if there is none. */
static uint64_t place(int domain, uint64_t size) {
  uint64_t align = PAGE;
  if (strcmp(setting("FAKEDRM_ALIGNMENT", "page"), "size") == 0)
    while (align < size) align <<= 1;
  if (size > SPAN) return 0;
  uint64_t best = 0, tops[MOST + 2];
  int n = 0;
  tops[n++] = SPAN;
  if (domain == 0) tops[n++] = SPAN - amount("FAKEDRM_OCCUPIED", 0);
  for (int i = 0; i < MOST; i++)
    if (buffers[i].used && buffers[i].domain == domain) tops[n++] = buffers[i].address;
  for (int i = 0; i < n; i++) {
    if (tops[i] < size) continue;
    uint64_t start = (tops[i] - size) / align * align;
    if (start >= PAGE && start > best && !overlaps(domain, start, size)) best = start;
  }
  return best;
}

static int create(struct create *c) {
  hang_if("create");
  uint64_t ms = amount("FAKEDRM_SLOW_MS", 0);
  if (ms) nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
  if (!c->size || c->flags & amount("FAKEDRM_REFUSES", 0)) return fail(EINVAL);
  if (!is_drm() && c->flags & 1) return fail(EINVAL);
  int domain = strcmp(setting("FAKEDRM_DOMAINS", "real"), "stub") == 0 ? 0 : c->domain;
  if (domain < 0 || domain >= DOMAINS) return fail(EINVAL);
  uint64_t size = (c->size + PAGE - 1) / PAGE * PAGE;
  if (held() + size > amount("FAKEDRM_RAM", 1ull << 40)) return fail(ENOMEM);
  uint64_t address = place(domain, size);
  if (!address) return fail(EFAULT);
  for (int i = 0; i < MOST; i++) {
    if (buffers[i].used) continue;
    buffers[i] = (struct buffer){size, address, 1, domain, -1};
    if (!is_drm()) buffers[i].fd = dup(2);
    c->handle = is_drm() ? (uint32_t)i + 1 : (uint32_t)buffers[i].fd;
    c->size = size;
    c->dma_addr = address;
    c->obj_addr = 0xffff800000000000ull + i;
    ledger("create %u %llu %d %#x\n", c->handle, (unsigned long long)size, domain, c->flags);
    return 0;
  }
  return fail(ENOMEM);
}

static int destroy(struct destroy *d) {
  hang_if("destroy");
  int i = is_drm() ? (int)d->handle - 1 : (int)(d->obj_addr & 0xffff);
  if (i < 0 || i >= MOST || !buffers[i].used) return fail(EINVAL);
  buffers[i].used = 0;
  ledger("destroy %u\n", d->handle);
  return 0;
}

static int act(struct action *a) {
  hang_if("action");
  int major = 0, minor = 0, patch = 0;
  sscanf(setting("FAKEDRM_VERSION", "0.9.8"), "%d.%d.%d", &major, &minor, &patch);
  int real = strcmp(setting("FAKEDRM_DOMAINS", "real"), "stub") != 0;
  switch (a->flags) {
    case 1: a->value = major * 10000 + minor * 100 + patch; return 0;
    case 18: a->value = amount("FAKEDRM_IOMMU", 1); return 0;
    case 24: a->value = current_domain; return 0;
    case 25:
      if (real && a->value >= DOMAINS) return fail(EINVAL);
      if (real) current_domain = a->value;
      ledger("switch %u\n", a->value);
      return 0;
    default: return fail(EINVAL);
  }
}

static void give(char *into, size_t *length, const char *text) {
  size_t room = *length, whole = strlen(text);
  if (into) memcpy(into, text, room < whole ? room : whole);
  *length = whole;
}

static int answer_version(struct version *v) {
  hang_if("version");
  sscanf(setting("FAKEDRM_VERSION", "0.9.8"), "%d.%d.%d", &v->major, &v->minor, &v->patch);
  give(v->name, &v->name_len, setting("FAKEDRM_NAME", "rknpu"));
  give(v->date, &v->date_len, "20240828");
  give(v->desc, &v->desc_len, "RKNPU driver");
  return 0;
}

static int answer(unsigned long request, void *data) {
  unsigned type = request >> 8 & 0xff, number = request & 0xff;
  if (is_drm() && type == 'd' && number == 0) return answer_version(data);
  if (type != (is_drm() ? 'd' : 'r')) return fail(ENOTTY);
  switch (is_drm() ? number - 0x40 : number) {
    case 0: return act(data);
    case 2: return create(data);
    case 4: return destroy(data);
    default: return fail(EINVAL);
  }
}

static int ours(const char *path) { return path && strcmp(path, setting("FAKEDRM_NODE", "/dev/dri/renderD129")) == 0; }

static int open_ours(int flags) {
  if (getenv("FAKEDRM_DENY")) return fail(EACCES);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  int fd = real("/dev/null", O_RDWR | (flags & O_CLOEXEC));
  if (fd >= 0 && n_opened < 64) opened[n_opened++] = fd;
  ledger("open\n");
  return fd;
}

#define MODE(flags)                                  \
  mode_t mode = 0;                                   \
  if (flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { \
    va_list arguments;                               \
    va_start(arguments, flags);                      \
    mode = va_arg(arguments, mode_t);                \
    va_end(arguments);                               \
  }

int open(const char *path, int flags, ...) {
  MODE(flags)
  if (ours(path)) return open_ours(flags);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  return real(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
  MODE(flags)
  if (ours(path)) return open_ours(flags);
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
  return real(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
  MODE(flags)
  if (ours(path)) return open_ours(flags);
  int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat");
  return real(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
  MODE(flags)
  if (ours(path)) return open_ours(flags);
  int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, "openat64");
  return real(at, path, flags, mode);
}

int close(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  int i = find_opened(fd);
  if (i >= 0) {
    opened[i] = opened[--n_opened];
    unsigned left = 0;
    for (int b = 0; b < MOST; b++) left += buffers[b].used, buffers[b].used = 0;
    ledger("close %u left\n", left);
  }
  return real(fd);
}

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void *data = va_arg(arguments, void *);
  va_end(arguments);
  if (find_opened(fd) >= 0) return answer(request & 0xffffffff, data);
  int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
  return real(fd, request, data);
}
