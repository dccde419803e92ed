// A libnvidia-ml.so.1 whose GPU draws a known power, on a clock that the test sets.
//
// FAKE_NVML_CURVE      constant:W | ramp:W_PER_S (from 1000 s on) | square:LOW:HIGH:HZ
// FAKE_NVML_PERIOD_S   between updates of the sensor (0.1);  FAKE_NVML_LOOK_S  of which it looks so long, at their end
// FAKE_NVML_AVERAGE_S  what nvmlDeviceGetPowerUsage is the mean of (1)
// FAKE_NVML_RESET_S    when the energy counter starts anew
// FAKE_NVML_COUNT, FAKE_NVML_MIXED (several models), FAKE_NVML_CAPABILITY (90 for 9.0), FAKE_NVML_MIG
// FAKE_NVML_INIT, FAKE_NVML_ENERGY, FAKE_NVML_INSTANT, FAKE_NVML_POWER: the error code that call returns (0)
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Return;
enum { kOk = 0, kInvalid = 2, kNotFound = 6 };
typedef struct {
  uint32_t field, scope;
  int64_t timestamp, latency_us;
  int type;
  Return result;
  union {
    double d;
    uint32_t u;
    uint64_t ull;
  } value;
} FieldValue;

static double now_s = 1000, shown_j;
static int64_t shown_updates = -1;
static int energy_error;

static double number(const char* name, double otherwise) {
  const char* text = getenv(name);
  return text ? atof(text) : otherwise;
}

// Joules from time 0 on.
double fake_nvml_joules(double t) {
  const char* curve = getenv("FAKE_NVML_CURVE");
  double a = 100, b = 0, hz = 1;
  if (!curve) return a * t;
  if (sscanf(curve, "constant:%lf", &a) == 1) return a * t;
  if (sscanf(curve, "ramp:%lf", &a) == 1) return t < 1000 ? 0 : a * (t - 1000) * (t - 1000) / 2;
  if (sscanf(curve, "square:%lf:%lf:%lf", &a, &b, &hz) != 3) abort();
  const double whole = floor(t * hz), part = t * hz - whole;
  return (whole * (a + b) / 2 + fmin(part, 0.5) * a + fmax(0, part - 0.5) * b) / hz;
}

static double period_s(void) { return number("FAKE_NVML_PERIOD_S", 0.1); }

static double mean_w(double until_s, double over_s) {
  return (fake_nvml_joules(until_s) - fake_nvml_joules(until_s - over_s)) / over_s;
}

void fake_nvml_time(double t) {
  const double period = period_s(), look = number("FAKE_NVML_LOOK_S", period), reset = number("FAKE_NVML_RESET_S", 0);
  const int64_t updates = (int64_t)floor(t / period);
  if (shown_updates < 0) shown_updates = updates;
  for (; shown_updates < updates; shown_updates++)
    shown_j += period * mean_w((double)(shown_updates + 1) * period, look);
  if (reset > now_s && reset <= t) shown_j = 0;
  now_s = t;
}

void fake_nvml_fail_energy(int error) { energy_error = error; }

static double updated_s(void) { return floor(now_s / period_s()) * period_s(); }

static unsigned count(void) { return (unsigned)number("FAKE_NVML_COUNT", 1); }

Return nvmlInitWithFlags(unsigned flags) { return flags ? kInvalid : (Return)number("FAKE_NVML_INIT", kOk); }
Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
Return nvmlShutdown(void) { return kOk; }
const char* nvmlErrorString(Return r) { return r == 999 ? "Unknown Error" : "an error of the fake"; }

Return nvmlDeviceGetCount_v2(unsigned* n) { return *n = count(), kOk; }

Return nvmlDeviceGetHandleByIndex_v2(unsigned i, uintptr_t* handle) {
  return i < count() ? (*handle = i + 1, kOk) : kInvalid;
}

Return nvmlDeviceGetHandleByUUID(const char* uuid, uintptr_t* handle) {
  unsigned i;
  return sscanf(uuid, "GPU-%u", &i) == 1 ? nvmlDeviceGetHandleByIndex_v2(i, handle) : kNotFound;
}

Return nvmlDeviceGetName(uintptr_t handle, char* name, unsigned length) {
  snprintf(name, length, "Fake %u", getenv("FAKE_NVML_MIXED") ? (unsigned)handle - 1 : 0);
  return kOk;
}

Return nvmlDeviceGetMigMode(uintptr_t handle, unsigned* now, unsigned* pending) {
  (void)handle;
  return *now = *pending = (unsigned)number("FAKE_NVML_MIG", 0), kOk;
}

Return nvmlDeviceGetCudaComputeCapability(uintptr_t handle, int* major, int* minor) {
  (void)handle;
  const int capability = (int)number("FAKE_NVML_CAPABILITY", 90);
  return *major = capability / 10, *minor = capability % 10, kOk;
}

Return nvmlDeviceGetTotalEnergyConsumption(uintptr_t handle, unsigned long long* mj) {
  (void)handle;
  *mj = (unsigned long long)(shown_j * 1e3);
  return energy_error ? energy_error : (Return)number("FAKE_NVML_ENERGY", kOk);
}

Return nvmlDeviceGetFieldValues(uintptr_t handle, int n, FieldValue* values) {
  (void)handle;
  for (int i = 0; i < n; i++) {
    values[i].result = values[i].field == 186 ? (Return)number("FAKE_NVML_INSTANT", kOk) : kInvalid;
    values[i].value.u = (uint32_t)(1e3 * mean_w(updated_s(), number("FAKE_NVML_LOOK_S", period_s())));
  }
  return kOk;
}

Return nvmlDeviceGetPowerUsage(uintptr_t handle, unsigned* mw) {
  (void)handle;
  *mw = (unsigned)(1e3 * mean_w(updated_s(), number("FAKE_NVML_AVERAGE_S", 1)));
  return (Return)number("FAKE_NVML_POWER", kOk);
}

Return nvmlDeviceGetEnforcedPowerLimit(uintptr_t handle, unsigned* mw) { return (void)handle, *mw = 700000, kOk; }

Return nvmlDeviceGetClockInfo(uintptr_t handle, int type, unsigned* mhz) {
  (void)handle;
  return *mhz = type == 1 ? 1980 : type == 2 ? 3201 : 0, kOk;
}

Return nvmlDeviceGetTemperature(uintptr_t handle, int sensor, unsigned* celsius) {
  (void)handle;
  return sensor == 0 ? (*celsius = 41, kOk) : kInvalid;
}
