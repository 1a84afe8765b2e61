// `longwave token create`, `list` and `revoke`: who may use a server, said by one of its admins.
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "boost/json/array.hpp"
#include "boost/json/object.hpp"
#include "boost/json/serialize.hpp"
#include "services/cluster/client_session.h"
#include "services/commands.h"
#include "services/option_checks.h"
#include "services/text.h"

namespace longwave {
namespace {

namespace json = boost::json;

struct TokenOptions {
  ClientOptions client;
  std::string name, tenant, role = "user", id;
  std::optional<int64_t> days;
};

absl::StatusOr<json::object> Ask(const TokenOptions& options, const std::string& method,
                                 const std::string& target, const json::object& body = {}) {
  const absl::StatusOr<std::unique_ptr<HttpClient>> client = OpenClient(options.client);
  if (!client.ok()) return client.status();
  absl::StatusOr<json::value> answer =
      (*client)->Send(method, target, body.empty() ? "" : json::serialize(body));
  if (answer.ok() && answer->is_null()) return json::object();  // 204
  return Object(std::move(answer));
}

absl::Status Create(const TokenOptions& options) {
  json::object body = {{"name", options.name}, {"role", options.role}};
  if (!options.tenant.empty()) body["tenant"] = options.tenant;
  if (options.days.has_value()) body["days"] = *options.days;
  const absl::StatusOr<json::object> token = Ask(options, "POST", "/v1/tokens", body);
  if (!token.ok()) return token.status();
  return PrintOut((options.client.json ? json::serialize(*token) : Text(*token, "token")) + "\n");
}

absl::Status List(const TokenOptions& options) {
  std::string target = "/v1/tokens";
  if (!options.tenant.empty()) absl::StrAppend(&target, "?tenant=", EscapeForUrl(options.tenant));
  const absl::StatusOr<json::object> answer = Ask(options, "GET", target);
  if (!answer.ok()) return answer.status();
  if (options.client.json) return PrintOut(json::serialize(*answer) + "\n");
  std::string text;
  if (const auto* tokens = answer->if_contains("tokens"); tokens != nullptr && tokens->is_array()) {
    for (const json::value& one : tokens->get_array()) {
      if (!one.is_object()) continue;
      const json::object& token = one.get_object();
      absl::StrAppend(&text, Text(token, "id"), "  ", Text(token, "tenant"), "  ",
                      Text(token, "role"), "  ", Text(token, "name"), "\n");
    }
  }
  return PrintOut(text);
}

absl::Status Revoke(const TokenOptions& options) {
  return Ask(options, "DELETE", absl::StrCat("/v1/tokens/", EscapeForUrl(options.id))).status();
}

}  // namespace

void AddTokenCommand(CLI::App& app, Action& action) {
  CLI::App* token = app.add_subcommand("token", "Who may use a server: for its admins");
  token->require_subcommand(1);
  const auto add = [&](const char* name, const char* about,
                       absl::Status (*run)(const TokenOptions&)) {
    CLI::App* command = token->add_subcommand(name, about);
    auto options = std::make_shared<TokenOptions>();
    AddServerOptions(*command, options->client);
    command->callback(
        [options, run, &action] { action = [options, run] { return run(*options); }; });
    return std::pair(command, options);
  };
  auto [create, made] =
      add("create", "Make a token; prints it, the only time that it is told", Create);
  create->add_option("NAME", made->name, "Who will have it")->required();
  create->add_option("--tenant", made->tenant, "Whose jobs and files it opens (default: default)");
  create->add_option("--role", made->role, "admin, user (jobs and files) or reader")
      ->capture_default_str();
  create->add_option("--days", made->days, "Until it expires (default: never)")
      ->check(WholeNumber());
  create->add_flag("--json", made->client.json, "Print all of it as JSON");

  auto [list, listed] = add("list", "The tokens, without their secrets", List);
  list->add_option("--tenant", listed->tenant, "Of this tenant only");
  list->add_flag("--json", listed->client.json, "Print JSON");

  auto [revoke, gone] = add("revoke", "End a token, at once", Revoke);
  revoke->add_option("TOKEN", gone->id, "Its id, as list prints it")->required();
}

}  // namespace longwave
