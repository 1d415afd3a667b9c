// Counts the processor time that each thread of Python has the interpreter's lock, for
// benchmarks/lock.py.
//
// Loaded ahead of Python, it stands in for the two functions by which the lock is released and
// taken again.
#include <dlfcn.h>
#include <time.h>

#include <atomic>

// Of a thread: when it took the lock, how long it has had it, and the stages it is in.
static thread_local long taken_at, held, held_before, time_before;
static thread_local int stages[16], depth;
static std::atomic<long> held_by_all, releases, spent[16][3];

static long now() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1000000000L + time.tv_nsec;
}

static long count(long time) {
  held += time - taken_at;
  held_by_all += time - taken_at;
  taken_at = time;
  return held;
}

// What has passed belongs to the innermost stage.
static void charge() {
  long time = now();
  count(time);
  if (depth > 0) {
    spent[stages[depth]][0] += held - held_before;
    spent[stages[depth]][1] += time - time_before;
  }
  held_before = held;
  time_before = time;
}

extern "C" void enter(int stage) {
  charge();
  stages[++depth] = stage;
}

extern "C" void leave() {
  charge();
  ++spent[stages[depth--]][2];
}

extern "C" long take(int stage, int column) { return spent[stage][column].exchange(0); }
extern "C" long held_ns() { return count(now()); }
extern "C" long held_ns_of_all() { return count(now()), held_by_all.load(); }
extern "C" long releases_of_all() { return releases; }

extern "C" void* PyEval_SaveThread() {
  static auto real = (void* (*)())dlsym(RTLD_NEXT, "PyEval_SaveThread");
  void* state = real();
  count(now());
  ++releases;
  return state;
}

extern "C" void PyEval_RestoreThread(void* state) {
  static auto real = (void (*)(void*))dlsym(RTLD_NEXT, "PyEval_RestoreThread");
  real(state);
  taken_at = now();
}
