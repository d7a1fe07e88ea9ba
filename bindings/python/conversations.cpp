// Conversations.

#include "port.hpp"

namespace towline::python {
namespace {

/// What a feed gives, and how far it is then; the feed itself is kept by Python, as numbers, so that what was
/// not handed over was not given.
struct Given {
  ConversationPage page;
  std::optional<std::uint64_t> given;
};

py::object to_python(const Given& given) {
  return py::make_tuple(python::to_python(given.page), given.given);
}

/// `sequence` of what is offered; 0: whatever is next.
Result<Given> ask_feed(Engine& engine, const std::string& user, const std::string& client,
                       const std::string& conversation, std::uint64_t sequence,
                       std::optional<std::uint64_t> given, std::size_t count_max) {
  auto feed = engine.conversations().feed(user, client);
  if (!feed) return std::move(feed).error();
  if (given) {
    if (auto bad = feed->begin(conversation, *given); !bad) return std::move(bad).error();
  }
  ConversationMessage message;
  message.conversation = conversation;
  message.sequence = sequence;
  auto page = sequence == 0 ? feed->next(conversation, count_max) : feed->offer(message, count_max);
  if (!page) return std::move(page).error();
  return Given{std::move(*page), feed->given(conversation)};
}

/// (sender, payload, content type, headers, id or None).
NewConversationMessage new_message_from(const py::tuple& fields) {
  NewConversationMessage message;
  message.sender = fields[0].cast<std::string>();
  message.payload = std::string(fields[1].cast<py::bytes>());
  message.content_type = fields[2].cast<std::string>();
  for (const auto& [name, value] : fields[3].cast<py::dict>())
    message.headers.emplace_back(name.cast<std::string>(), value.cast<std::string>());
  if (!fields[4].is_none()) message.id = id_from(fields[4].cast<std::string>());
  return message;
}

void define_reading(py::class_<PyPort>& port) {
  port.def("append_message",
           [](PyPort& self, RequestId id, const std::string& conversation, const py::tuple& fields) {
             return self.run(id, [conversation, message = new_message_from(fields)](Engine& e) {
               return e.conversations().append(conversation, message);
             });
           })
      .def("messages_since",
           [](PyPort& self, RequestId id, const std::string& conversation, std::uint64_t after,
              std::size_t count_max) {
             return self.run(id, [=](Engine& e) {
               return e.conversations().messages_since(conversation, after, count_max);
             });
           })
      .def("messages_since_id",
           [](PyPort& self, RequestId id, const std::string& conversation, const std::string& after,
              std::size_t count_max) {
             return self.run(id, [conversation, after = id_from(after), count_max](Engine& e) {
               return e.conversations().messages_since(conversation, after, count_max);
             });
           })
      .def("find_conversation",
           [](PyPort& self, RequestId id, const std::string& conversation) {
             return self.run(id, [=](Engine& e) { return e.conversations().find(conversation); });
           })
      .def("trim_conversation",
           [](PyPort& self, RequestId id, const std::string& conversation, std::uint64_t before) {
             return self.run(id, [=](Engine& e) { return e.conversations().trim(conversation, before); });
           });
}

void define_clients(py::class_<PyPort>& port) {
  port.def("acknowledge_message",
           [](PyPort& self, RequestId id, const std::string& user, const std::string& client,
              const std::string& conversation, std::uint64_t sequence) {
             return self.run(id, [=](Engine& e) {
               return e.conversations().acknowledge(user, client, conversation, sequence);
             });
           })
      .def("client_position",
           [](PyPort& self, RequestId id, const std::string& user, const std::string& client,
              const std::string& conversation) {
             return self.run(
                 id, [=](Engine& e) { return e.conversations().position(user, client, conversation); });
           })
      .def("note_missed",
           [](PyPort& self, RequestId id, const std::string& user, const std::string& conversation,
              std::uint64_t sequence) {
             return self.run(
                 id, [=](Engine& e) { return e.conversations().note_missed(user, conversation, sequence); });
           })
      .def("missed_messages",
           [](PyPort& self, RequestId id, const std::string& user, std::size_t count_max,
              const std::string& cursor) {
             return self.run(id,
                             [=](Engine& e) { return e.conversations().missed(user, count_max, cursor); });
           })
      .def("reconnect_client",
           [](PyPort& self, RequestId id, const std::string& user, const std::string& client,
              std::size_t count_max, const std::string& cursor) {
             return self.run(
                 id, [=](Engine& e) { return e.conversations().reconnect(user, client, count_max, cursor); });
           })
      .def("ask_feed", [](PyPort& self, RequestId id, const std::string& user, const std::string& client,
                          const std::string& conversation, std::uint64_t sequence,
                          std::optional<std::uint64_t> given, std::size_t count_max) {
        return self.run(id, [=](Engine& e) {
          return ask_feed(e, user, client, conversation, sequence, given, count_max);
        });
      });
}

}  // namespace

void define_conversations(py::class_<PyPort>& port) {
  define_reading(port);
  define_clients(port);
}

}  // namespace towline::python
