// The log of a scheduler: every call that changed its state, and a replay that decides the same again.
//
// What is recorded is what the decisions depend on: lengths, not tokens; of a step's tokens only which were missing or
// ended an output; of equal prefixes only who shared one with whom. The file: 8 bytes "wwlog\r\n" and the version, then blocks of
//
//     payload length: varint | payload: whole records | CRC-32 of the payload (zlib's): u32
//
// A block is written when it has 32 KiB, when a record comes a second after the last block, and at the end; so a log
// that was cut off anywhere replays up to its last whole block. A record: one byte, the time in ns since the record
// before (signed varint; not in config, drain, end and share), and
//
//     0 config    each field of SchedulerConfig, in order: varint
//     1 submit    prompt tokens, max_tokens: signed varint; bits: 1 stop token, 2 priority, 4 tenant, 8 deadline,
//                 16 timeout; of these but the first, those there are: signed varint, varint, and signed varints from now
//     2 cancel    id: varint; one that was live
//     3 expire    where something was due
//     4 schedule  where it gave a batch; the low 16 bits of the decision hash after it
//     5 complete  how many, then each: row * 2 + (1: it ended its output by the stop token, 0: it has no token)
//     6 fail
//     7 drain     1 or 0
//     8 end       the decision hash: u64. The last record of a log that is complete
//     9 share     id, donor, how many blocks: varints. Before the schedule in which that request was admitted onto the
//                 first blocks of the donor (of those that ran and held the last of them, the first)
//
// Times are from 0 to 2^62 ns. Fixed-size numbers are little-endian, varints LEB128, signed ones zigzag. src/wattwork/scheduler/log.py is the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "scheduler/scheduler.h"
#include "scheduler/served.h"

namespace ww {

enum class LogOp : uint8_t { config, submit, cancel, expire, schedule, complete, fail, drain, end, share };
constexpr char kLogMagic[8] = {'w', 'w', 'l', 'o', 'g', '\r', '\n', 2};

WW_API uint32_t crc32(const uint8_t* data, size_t n);

// Writes under the loop's lock: a block at a time, to the page cache. What cannot be written stops the recording, not
// the scheduler.
class LogWriter {
 public:
  LogWriter(const std::string& path, const SchedulerConfig& config);  // throws std::runtime_error
  ~LogWriter();                                                      // without finish(): cut off at the last block
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  void submit(int64_t now_ns, int32_t n, const RequestParams& params);
  void cancel(int64_t now_ns, uint64_t id);
  void expire(int64_t now_ns);
  void schedule(int64_t now_ns, uint64_t hash);
  void share(const PrefixShare& share);
  void complete(int64_t now_ns, const std::vector<uint64_t>& exceptions);
  void fail(int64_t now_ns);
  void drain(bool draining);
  void finish(uint64_t hash);
  const std::string& error() const { return error_; }  // why it stopped; empty: it did not

 private:
  void open_record(LogOp op);
  void open_record(LogOp op, int64_t now_ns);
  void varint(uint64_t value);
  void zigzag(int64_t value);
  void fixed(uint64_t value, int bytes);
  void flush();
  void put(const uint8_t* data, size_t n);

  int fd_;
  std::vector<uint8_t> payload_;
  int64_t last_ns_ = 0, flushed_ns_ = 0;
  std::string error_;
};

struct LogReplay {
  Served served;
  SchedulerCounters counters{};
  uint64_t decision_hash = 0;
  int64_t begin_ns = 0, end_ns = 0;  // of the first and the last record that has a time
  int64_t busy_ns = 0;               // from a batch to its end
  int64_t cut_at = -1;               // byte where it ceases to be a log; -1: it is complete
  int64_t differs_at = -1;           // the step, from 1, that was decided otherwise; -1: none
};

// Throws std::invalid_argument where the data does not even begin as a log, std::bad_alloc where it asks too much.
WW_API LogReplay replay_log(const uint8_t* data, size_t n, const std::function<bool()>& stop = {});

}  // namespace ww
