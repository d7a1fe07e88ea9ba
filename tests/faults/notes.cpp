// Writing and following ledgers.

#include "faults/notes.hpp"

#include <ctime>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace towline::faults {

std::int64_t monotonic_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000;
}

std::string to_line(const Note& note) {
  std::ostringstream out;
  out << note.at_us << ' ' << note.what << ' ' << note.group << ' ' << note.number << ' ' << note.attempt
      << ' ' << (note.redelivered ? 1 : 0) << ' ' << note.text;
  return out.str();
}

Note parse_note(const std::string& line) {
  std::istringstream in(line);
  Note note;
  int redelivered = 0;
  in >> note.at_us >> note.what >> note.group >> note.number >> note.attempt >> redelivered;
  if (in.fail()) throw std::runtime_error("no ledger line: " + line);
  note.redelivered = redelivered != 0;
  in.get();
  std::getline(in, note.text);
  return note;
}

void Notebook::note(std::string_view what, std::int64_t number, std::string_view text) {
  note({.at_us = monotonic_us(), .what = std::string(what), .number = number, .text = std::string(text)});
}

void History::read() {
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (entry.path().extension() == ".notes") files_.try_emplace(entry.path().stem().string());
  }
  for (auto& [source, file] : files_) {
    std::ifstream in(folder_ + "/" + source + ".notes", std::ios::binary);
    in.seekg(static_cast<std::streamoff>(file.offset));
    const std::string fresh((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    file.offset += fresh.size();
    file.rest += fresh;
    std::size_t begin = 0;
    for (auto end = file.rest.find('\n'); end != std::string::npos; end = file.rest.find('\n', begin)) {
      Note note = parse_note(file.rest.substr(begin, end - begin));
      note.source = source;
      ++counts_[note.what];
      if (note.what == "start") ++open_[source];
      if (note.what == "done" || note.what == "failed" || note.what == "void") --open_[source];
      notes_.push_back(std::move(note));
      begin = end + 1;
    }
    file.rest.erase(0, begin);
  }
}

std::size_t History::count(std::string_view what) const {
  const auto found = counts_.find(what);
  return found == counts_.end() ? 0 : found->second;
}

std::size_t History::open_count(const std::string& source) const {
  const auto found = open_.find(source);
  return found == open_.end() || found->second < 0 ? 0 : static_cast<std::size_t>(found->second);
}

std::string to_payload(const Item& item, std::size_t bytes_min) {
  std::ostringstream out;
  out << item.number << ' ' << item.key << ' ' << item.sequence << ' ' << item.kind << ' ';
  std::string text = out.str();
  // The padding depends on the number, so that a half or swapped payload shows.
  for (std::size_t i = text.size(); i < bytes_min; ++i)
    text += static_cast<char>('a' + (static_cast<std::size_t>(item.number) + i) % 26);
  return text;
}

Item parse_item(std::string_view payload) {
  std::istringstream in{std::string(payload)};
  Item item;
  in >> item.number >> item.key >> item.sequence >> item.kind;
  if (in.fail()) throw std::runtime_error("no item: " + std::string(payload.substr(0, 80)));
  if (to_payload(item, payload.size()) != payload)
    throw std::runtime_error("altered: " + std::string(payload.substr(0, 80)));
  return item;
}

}  // namespace towline::faults
