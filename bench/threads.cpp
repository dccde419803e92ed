// What bench_threads.py times, in a program of its own without an interpreter. Prints one JSON object.
//
//     threads scale ISA VERSIONS THREADS ROUNDS MS     rates on one thread, on THREADS, and of as many processes, and
//                                                      what part of the machine other programs had in each round
//     threads stop  ISA VERSIONS THREADS TRIALS        nanoseconds from setting the stop word to ww_search's return
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "wattwork/wattwork.h"

namespace {

const char* isa;
uint64_t versions;

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

// The processor's time of all threads of this process.
double cpu_s() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Searches for what is not there; returns the pairs tested.
uint64_t search(uint64_t nonces, uint32_t threads, const ww_stop* stop) {
  ww_work work{};  // a target of zero
  for (int i = 0; i < 80; ++i) work.header[i] = static_cast<uint8_t>(i);
  work.version_mask = 0x1fffe000;
  const ww_rect rect{0, nonces, 0, versions};
  ww_hit hit;
  std::vector<ww_rect> remaining(threads + 3);
  ww_result result;
  const int code = ww_search(&work, &rect, isa, threads, stop, &hit, 1, remaining.data(), remaining.size(), &result);
  if (code != WW_OK) {
    std::fprintf(stderr, "%s\n", ww_strerror(code));
    std::exit(1);
  }
  return result.hashes;
}

// Seconds of so many searches, one after another.
double timed_s(uint64_t nonces, uint32_t threads, int searches) {
  const int64_t begin = now_ns();
  for (int i = 0; i < searches; ++i) search(nonces, threads, nullptr);
  return static_cast<double>(now_ns() - begin) * 1e-9;
}

// The processors' time that anyone had, this process or another, or another guest of the host.
double machine_cpu_s() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0, steal = 0;
  stat >> cpu >> user >> nice >> system >> idle >> iowait >> irq >> softirq >> steal;
  return (user + nice + system + irq + softirq + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// Processes that search on one thread each, all at once: what the machine gives to that many cores.
class Processes {
 public:
  explicit Processes(uint32_t n) : n_(n) {
    void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_ = new (memory) Shared;
    for (uint32_t i = 0; i < n; ++i) sem_init(&shared_->begin[i], 1, 0);
    sem_init(&shared_->done, 1, 0);
    for (uint32_t i = 0; i < n; ++i)
      if (fork() == 0) child(i);
  }
  ~Processes() {
    begin(0, 0);
    while (wait(nullptr) > 0) {
    }
  }

  // The sum of their rates, each over its own seconds, in nonces per second.
  double rate(uint64_t nonces, int searches) {
    begin(nonces, searches);
    for (uint32_t i = 0; i < n_; ++i) sem_wait(&shared_->done);
    double sum = 0;
    for (uint32_t i = 0; i < n_; ++i) sum += static_cast<double>(nonces) * searches / shared_->seconds[i];
    return sum;
  }
  double busy() const {  // the share of their time that they had a core
    double cpu = 0, wall = 0;
    for (uint32_t i = 0; i < n_; ++i) cpu += shared_->round_cpu_s[i], wall += shared_->seconds[i];
    return cpu / wall;
  }
  double cpu_s() const {
    double sum = 0;
    for (uint32_t i = 0; i < n_; ++i) sum += shared_->cpu_s[i];
    return sum;
  }

 private:
  struct Shared {
    sem_t begin[1024], done;  // so that who waits takes no core from who is measured
    uint64_t nonces = 0;
    int searches = 0;
    double seconds[1024], cpu_s[1024], round_cpu_s[1024];
  };

  void begin(uint64_t nonces, int searches) {
    shared_->nonces = nonces, shared_->searches = searches;
    for (uint32_t i = 0; i < n_; ++i) sem_post(&shared_->begin[i]);
  }
  [[noreturn]] void child(uint32_t i) {
    for (;;) {
      sem_wait(&shared_->begin[i]);
      if (shared_->nonces == 0) _exit(0);
      shared_->seconds[i] = timed_s(shared_->nonces, 1, shared_->searches);
      shared_->round_cpu_s[i] = ::cpu_s() - shared_->cpu_s[i];
      shared_->cpu_s[i] = ::cpu_s();
      sem_post(&shared_->done);
    }
  }

  uint32_t n_;
  Shared* shared_;
};

void list(const char* name, const std::vector<double>& values) {
  std::printf("\"%s\": [", name);
  for (size_t i = 0; i < values.size(); ++i) std::printf("%s%.9g", i ? ", " : "", values[i]);
  std::printf("]");
}

// A search takes some `ms` milliseconds; of each kind so many in a round that they take kRoundMs.
void scale(uint32_t threads, int rounds, double ms) {
  constexpr double kRoundMs = 400;
  const uint64_t probe = (uint64_t{1} << 20) / versions;
  timed_s(probe, 1, 1);
  const auto nonces = static_cast<uint64_t>(static_cast<double>(probe) * ms / 1e3 / timed_s(probe, 1, 1));
  const int searches = std::max(1, static_cast<int>(kRoundMs / ms));
  const double pairs = static_cast<double>(nonces * versions) * searches;
  Processes processes(threads);
  timed_s(threads * nonces, threads, 1);
  std::vector<double> one, team, apart, of_cpu, busy, apart_busy, others;
  for (int i = 0; i < rounds; ++i) {
    const double begin = machine_cpu_s(), own_before = cpu_s(), own = own_before + processes.cpu_s();
    const int64_t begin_ns = now_ns();
    one.push_back(pairs / timed_s(nonces, 1, searches));
    const double before = cpu_s(), seconds = timed_s(threads * nonces, threads, searches), cpu = cpu_s() - before;
    team.push_back(threads * pairs / seconds);
    of_cpu.push_back(threads * (before - own_before) / cpu);
    busy.push_back(cpu / seconds / threads);
    apart.push_back(processes.rate(nonces, searches) * static_cast<double>(versions));
    apart_busy.push_back(processes.busy());
    const double cores_s = std::thread::hardware_concurrency() * static_cast<double>(now_ns() - begin_ns) * 1e-9;
    others.push_back((machine_cpu_s() - begin - (cpu_s() + processes.cpu_s() - own)) / cores_s);
  }
  std::printf("{");
  list("one", one), std::printf(", ");
  list("team", team), std::printf(", ");
  list("of_cpu", of_cpu), std::printf(", ");
  list("busy", busy), std::printf(", ");
  list("processes_busy", apart_busy), std::printf(", ");
  list("others", others), std::printf(", ");
  list("processes", apart), std::printf("}\n");
}

// The stopper sleeps until its moment, so that it takes no core from the search before.
void stop(uint32_t threads, int trials) {
  std::mt19937 random(1);
  std::vector<double> latencies;
  ww_stop word{0};
  std::atomic<int> trial{-1};
  std::atomic<int64_t> set_ns{0};
  std::vector<int> delays_us;
  for (int i = 0; i < trials; ++i) delays_us.push_back(static_cast<int>(1000 + random() % 4000));
  std::thread stopper([&] {
    for (int i = 0; i < trials; ++i) {
      trial.wait(i - 1);
      std::this_thread::sleep_for(std::chrono::microseconds(delays_us[static_cast<size_t>(i)]));
      set_ns = now_ns();
      ww_stop_set(&word);
    }
  });
  search(1 << 16, threads, nullptr);
  for (int i = 0; i < trials; ++i) {
    ww_stop_clear(&word);
    trial = i;
    trial.notify_one();
    search(uint64_t{1} << 32, threads, &word);
    latencies.push_back(static_cast<double>(now_ns() - set_ns));
  }
  stopper.join();
  std::printf("{");
  list("latency_ns", latencies), std::printf("}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) return 2;
  isa = argv[2], versions = std::strtoull(argv[3], nullptr, 10);
  const auto threads = static_cast<uint32_t>(std::atoi(argv[4]));
  if (!std::strcmp(argv[1], "scale") && argc == 7) scale(threads, std::atoi(argv[5]), std::atof(argv[6]));
  else if (!std::strcmp(argv[1], "stop")) stop(threads, std::atoi(argv[5]));
  else return 2;
}
