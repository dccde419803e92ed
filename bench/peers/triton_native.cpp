// Triton's server library in this process, through its C API: one library that is both a backend doing nothing, which
// Triton loads, and the requests that triton.py measures it with. The wheel ships the library without its headers; so
// what is used of them is declared here. One model, dynamic batches of up to 64, one input and one output of an int32.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#define API __attribute__((visibility("default")))

extern "C" {
struct Error;
struct Server;
struct Options;
struct Request;   // the caller's
struct Response;  // the caller's
struct Allocator;
struct Instance;
struct Job;    // the backend's name for a request
struct Reply;  // the backend's name for a response
struct Input;
struct Output;
using Alloc = Error* (*)(Allocator*, const char*, size_t, int, int64_t, void*, void**, void**, int*, int64_t*);
using Free = Error* (*)(Allocator*, void*, void*, size_t, int, int64_t);

const char* TRITONSERVER_ErrorMessage(Error*);
Error* TRITONSERVER_ServerOptionsNew(Options**);
Error* TRITONSERVER_ServerOptionsDelete(Options*);
Error* TRITONSERVER_ServerOptionsSetModelRepositoryPath(Options*, const char*);
Error* TRITONSERVER_ServerOptionsSetBackendDirectory(Options*, const char*);
Error* TRITONSERVER_ServerOptionsSetLogInfo(Options*, bool);
Error* TRITONSERVER_ServerOptionsSetLogWarn(Options*, bool);
Error* TRITONSERVER_ServerOptionsSetMetrics(Options*, bool);
Error* TRITONSERVER_ServerNew(Server**, Options*);
Error* TRITONSERVER_ServerStop(Server*);
Error* TRITONSERVER_ServerDelete(Server*);
Error* TRITONSERVER_ServerInferAsync(Server*, Request*, void* trace);
Error* TRITONSERVER_InferenceRequestNew(Request**, Server*, const char* model, int64_t version);
Error* TRITONSERVER_InferenceRequestDelete(Request*);
Error* TRITONSERVER_InferenceRequestCancel(Request*);
Error* TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(Request*, uint64_t);
Error* TRITONSERVER_InferenceRequestAddInput(Request*, const char*, int type, const int64_t* shape, uint64_t dims);
Error* TRITONSERVER_InferenceRequestAppendInputData(Request*, const char*, const void*, size_t, int, int64_t);
Error* TRITONSERVER_InferenceRequestSetReleaseCallback(Request*, void (*)(Request*, uint32_t, void*), void*);
Error* TRITONSERVER_InferenceRequestSetResponseCallback(Request*, Allocator*, void*,
                                                        void (*)(Response*, uint32_t, void*), void*);
Error* TRITONSERVER_InferenceResponseError(Response*);
Error* TRITONSERVER_InferenceResponseDelete(Response*);
Error* TRITONSERVER_ResponseAllocatorNew(Allocator**, Alloc, Free, void* start);
Error* TRITONBACKEND_RequestInput(Job*, const char*, Input**);
Error* TRITONBACKEND_InputBuffer(Input*, uint32_t, const void**, uint64_t*, int* memory, int64_t*);
Error* TRITONBACKEND_RequestRelease(Job*, uint32_t flags);
Error* TRITONBACKEND_ResponseNew(Reply**, Job*);
Error* TRITONBACKEND_ResponseOutput(Reply*, Output**, const char*, int type, const int64_t* shape, uint32_t dims);
Error* TRITONBACKEND_OutputBuffer(Output*, void**, uint64_t, int* memory, int64_t*);
Error* TRITONBACKEND_ResponseSend(Reply*, uint32_t flags, Error*);
}

namespace {

constexpr int kInt32 = 8, kCpu = 0, kAll = 1, kFinal = 1;
constexpr int64_t kShape[2] = {1, 1};
using Clock = std::chrono::steady_clock;

void check(Error* error) {
  if (!error) return;
  std::fprintf(stderr, "triton: %s\n", TRITONSERVER_ErrorMessage(error));
  std::_Exit(1);
}

double now_s() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }
void sleep_s(double s) { std::this_thread::sleep_for(std::chrono::duration<double>(s)); }

struct Slot {
  int32_t in = 0, out = -1;
  Request* request = nullptr;
  std::atomic<double> told{0};
  std::atomic<bool> failed{false}, ran{false};
};

Server* server;
Allocator* allocator;
std::vector<Slot>* slots;  // of the measurement under way; a request's input is its place there
const char* model = "noop";
std::atomic<int> wanted, answered, released, blocked, stepping;

// Wakes the caller once, not for each.
void count(std::atomic<int>& of) {
  if (++of == wanted) of.notify_all();
}

// As others keep their callers' handles, a request is kept until the measurement is over.
void on_release(Request*, uint32_t, void*) { count(released); }

void on_response(Response* response, uint32_t, void* user) {
  auto& slot = *static_cast<Slot*>(user);
  slot.failed = TRITONSERVER_InferenceResponseError(response) != nullptr;
  check(TRITONSERVER_InferenceResponseDelete(response));
  slot.told = now_s();
  count(answered);
}

Error* on_alloc(Allocator*, const char*, size_t, int, int64_t, void* user, void** buffer, void**, int* memory,
                int64_t* memory_id) {
  *buffer = &static_cast<Slot*>(user)->out, *memory = kCpu, *memory_id = 0;
  return nullptr;
}
Error* on_free(Allocator*, void*, void*, size_t, int, int64_t) { return nullptr; }

void submit(Slot& slot, int id, uint64_t timeout_us = 0) {
  slot.in = id;
  check(TRITONSERVER_InferenceRequestNew(&slot.request, server, model, -1));
  check(TRITONSERVER_InferenceRequestAddInput(slot.request, "x", kInt32, kShape, 2));
  check(TRITONSERVER_InferenceRequestAppendInputData(slot.request, "x", &slot.in, sizeof slot.in, kCpu, 0));
  check(TRITONSERVER_InferenceRequestSetReleaseCallback(slot.request, on_release, nullptr));
  check(TRITONSERVER_InferenceRequestSetResponseCallback(slot.request, allocator, &slot, on_response, &slot));
  if (timeout_us) check(TRITONSERVER_InferenceRequestSetTimeoutMicroseconds(slot.request, timeout_us));
  check(TRITONSERVER_ServerInferAsync(server, slot.request, nullptr));
}

void wait_for_all(std::atomic<int>& of) {
  for (int now = of; now < wanted; now = of) of.wait(now);
}

void begin(std::vector<Slot>& of) { slots = &of, wanted = static_cast<int>(of.size()), answered = released = 0; }

void end(std::vector<Slot>& of) {
  wait_for_all(answered), wait_for_all(released);
  for (Slot& slot : of) check(TRITONSERVER_InferenceRequestDelete(slot.request));
}

// The model sits on the first, the rest is queued.
void block_with(std::vector<Slot>& of, int n) {
  blocked = 1, stepping = 0;
  submit(of[0], 0);
  while (!stepping) sleep_s(0.001);
  for (int i = 1; i <= n; ++i) submit(of[i], i);
}

void let_go() { blocked = 0, blocked.notify_all(); }

}  // namespace

extern "C" {

API Error* TRITONBACKEND_ModelInstanceExecute(Instance*, Job** jobs, const uint32_t n) {
  if (blocked) stepping = 1, blocked.wait(1);
  for (uint32_t i = 0; i < n; ++i) {
    Input* input;
    const void* in;
    void* out;
    uint64_t bytes;
    int memory = kCpu;
    int64_t memory_id = 0;
    Reply* reply;
    Output* output;
    check(TRITONBACKEND_RequestInput(jobs[i], "x", &input));
    check(TRITONBACKEND_InputBuffer(input, 0, &in, &bytes, &memory, &memory_id));
    const int32_t id = *static_cast<const int32_t*>(in);
    (*slots)[id].ran = true;
    check(TRITONBACKEND_ResponseNew(&reply, jobs[i]));
    check(TRITONBACKEND_ResponseOutput(reply, &output, "y", kInt32, kShape, 2));
    check(TRITONBACKEND_OutputBuffer(output, &out, sizeof id, &memory, &memory_id));
    *static_cast<int32_t*>(out) = id;
    check(TRITONBACKEND_ResponseSend(reply, kFinal, nullptr));
    check(TRITONBACKEND_RequestRelease(jobs[i], kAll));
  }
  return nullptr;
}

API void start(const char* models, const char* backends) {
  Options* options;
  check(TRITONSERVER_ServerOptionsNew(&options));
  check(TRITONSERVER_ServerOptionsSetModelRepositoryPath(options, models));
  check(TRITONSERVER_ServerOptionsSetBackendDirectory(options, backends));
  check(TRITONSERVER_ServerOptionsSetLogInfo(options, false));
  check(TRITONSERVER_ServerOptionsSetLogWarn(options, false));
  check(TRITONSERVER_ServerOptionsSetMetrics(options, false));
  check(TRITONSERVER_ServerNew(&server, options));
  check(TRITONSERVER_ServerOptionsDelete(options));
  check(TRITONSERVER_ResponseAllocatorNew(&allocator, on_alloc, on_free, nullptr));
}

API void use(const char* name) { model = name; }

API void stop() {
  check(TRITONSERVER_ServerStop(server));
  check(TRITONSERVER_ServerDelete(server));
}

// Seconds from the first of n submitted to the last one's answer.
API double burst(int n) {
  std::vector<Slot> of(n);
  begin(of);
  const double from = now_s();
  for (int i = 0; i < n; ++i) submit(of[i], i);
  wait_for_all(answered);
  const double seconds = now_s() - from;
  end(of);
  for (int i = 0; i < n; ++i)
    if (of[i].out != i) std::fprintf(stderr, "triton: request %d was answered %d\n", i, of[i].out), std::_Exit(1);
  return seconds;
}

// Of each sample: seconds until the call returned, until its caller was told; whether that was while the model was
// blocked; whether it was executed.
API void cancels(int n, int samples, double told_s, double hold_s, double* returned, double* told, int* in_time,
                 int* executed) {
  std::vector<Slot> of(n + 1);
  begin(of);
  block_with(of, n);
  std::vector<int> ids(n);
  for (int i = 0; i < n; ++i) ids[i] = i + 1;
  std::shuffle(ids.begin(), ids.end(), std::mt19937(1));
  std::vector<double> asked(samples);
  for (int k = 0; k < samples; ++k) {
    Slot& slot = of[ids[k]];
    asked[k] = now_s();
    check(TRITONSERVER_InferenceRequestCancel(slot.request));
    returned[k] = now_s() - asked[k];
    while (slot.told == 0 && now_s() - asked[k] < told_s) std::this_thread::yield();
  }
  sleep_s(hold_s);
  for (int k = 0; k < samples; ++k) in_time[k] = of[ids[k]].told != 0;
  let_go();
  end(of);
  for (int k = 0; k < samples; ++k) told[k] = of[ids[k]].told - asked[k], executed[k] = of[ids[k]].ran;
}

API void timeouts(int n, int samples, double timeout_s, double hold_s, double* told, int* in_time, int* executed) {
  std::vector<Slot> of(n + 1 + samples);
  begin(of);
  block_with(of, n);
  std::vector<double> from(samples);
  for (int k = 0; k < samples; ++k) {
    from[k] = now_s();
    submit(of[n + 1 + k], n + 1 + k, static_cast<uint64_t>(timeout_s * 1e6));
    sleep_s(0.001);
  }
  sleep_s(hold_s);
  for (int k = 0; k < samples; ++k) in_time[k] = of[n + 1 + k].failed;
  let_go();
  end(of);
  for (int k = 0; k < samples; ++k) told[k] = of[n + 1 + k].told - from[k], executed[k] = of[n + 1 + k].ran;
}
}
