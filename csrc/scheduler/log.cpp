#include "scheduler/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace ww {
namespace {

constexpr size_t kBlockBytes = 32 << 10;
constexpr int64_t kBlockNs = 1'000'000'000;

constexpr std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}

}  // namespace

uint32_t crc32(const uint8_t* data, size_t n) {
  static constexpr auto table = crc_table();
  uint32_t c = ~uint32_t{0};
  for (size_t i = 0; i < n; ++i) c = table[(c ^ data[i]) & 0xFF] ^ (c >> 8);
  return ~c;
}

LogWriter::LogWriter(const std::string& path, const SchedulerConfig& c)
    : fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) throw std::runtime_error(std::string("the recording cannot be written: ") + std::strerror(errno));
  put(reinterpret_cast<const uint8_t*>(kLogMagic), sizeof kLogMagic);
  open_record(LogOp::config);
  for (const int64_t field : {int64_t{c.max_num_seqs}, int64_t{c.max_num_batched_tokens}, int64_t{c.max_num_queued_reqs},
                              c.max_num_queued_tokens, int64_t{c.block_size}, int64_t{c.num_blocks},
                              int64_t{c.max_model_len}, c.max_queue_delay_us, int64_t{c.max_overtakes},
                              int64_t{c.enable_prefix_sharing}})
    varint(static_cast<uint64_t>(field));
  flush();
}

LogWriter::~LogWriter() {
  if (fd_ >= 0) close(fd_);
}

void LogWriter::submit(int64_t now_ns, int32_t n, const RequestParams& p) {
  open_record(LogOp::submit, now_ns);
  zigzag(n);
  zigzag(p.max_tokens);
  payload_.push_back(static_cast<uint8_t>((p.stop_token_id >= 0) | (p.priority != 0) << 1 | (p.tenant != 0) << 2 |
                                          (p.deadline_ns != 0) << 3 | (p.timeout_ns != 0) << 4));
  if (p.priority) zigzag(p.priority);
  if (p.tenant) varint(p.tenant);
  if (p.deadline_ns) zigzag(p.deadline_ns - now_ns);
  if (p.timeout_ns) zigzag(p.timeout_ns - now_ns);
}

void LogWriter::cancel(int64_t now_ns, uint64_t id) {
  open_record(LogOp::cancel, now_ns);
  varint(id);
}

void LogWriter::expire(int64_t now_ns) { open_record(LogOp::expire, now_ns); }

void LogWriter::schedule(int64_t now_ns, uint64_t hash) {
  open_record(LogOp::schedule, now_ns);
  fixed(hash, 2);
}

void LogWriter::share(const PrefixShare& share) {
  open_record(LogOp::share);
  varint(share.id);
  varint(share.donor);
  varint(static_cast<uint64_t>(share.n_blocks));
}

void LogWriter::complete(int64_t now_ns, const std::vector<uint64_t>& exceptions) {
  open_record(LogOp::complete, now_ns);
  varint(exceptions.size());
  for (const uint64_t e : exceptions) varint(e);
}

void LogWriter::fail(int64_t now_ns) { open_record(LogOp::fail, now_ns); }

void LogWriter::drain(bool draining) {
  open_record(LogOp::drain);
  payload_.push_back(draining);
}

void LogWriter::finish(uint64_t hash) {
  open_record(LogOp::end);
  fixed(hash, 8);
  flush();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void LogWriter::open_record(LogOp op) {
  if (payload_.size() >= kBlockBytes) flush();
  payload_.push_back(static_cast<uint8_t>(op));
}

void LogWriter::open_record(LogOp op, int64_t now_ns) {
  if (now_ns - flushed_ns_ >= kBlockNs) {
    flush();
    flushed_ns_ = now_ns;
  }
  open_record(op);
  zigzag(now_ns - last_ns_);
  last_ns_ = now_ns;
}

void LogWriter::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) payload_.push_back(static_cast<uint8_t>(value | 0x80));
  payload_.push_back(static_cast<uint8_t>(value));
}

void LogWriter::zigzag(int64_t value) { varint(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63)); }

void LogWriter::fixed(uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) payload_.push_back(static_cast<uint8_t>(value >> 8 * i));
}

void LogWriter::flush() {
  if (payload_.empty()) return;
  std::vector<uint8_t> payload;
  payload.swap(payload_);
  const uint32_t crc = crc32(payload.data(), payload.size());
  varint(payload.size());
  payload_.insert(payload_.end(), payload.begin(), payload.end());
  fixed(crc, 4);
  put(payload_.data(), payload_.size());
  payload_.clear();
}

void LogWriter::put(const uint8_t* data, size_t n) {
  while (fd_ >= 0 && n > 0) {
    const ssize_t done = write(fd_, data, n);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) {
      error_ = std::strerror(errno);
      close(fd_);
      fd_ = -1;
      return;
    }
    data += done;
    n -= static_cast<size_t>(done);
  }
}

}  // namespace ww
