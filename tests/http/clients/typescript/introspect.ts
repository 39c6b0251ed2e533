// Introspects a token with a public client of RFC 7662, oauth4webapi, which finds the endpoint by the
// metadata of RFC 8414. Prints the answer in one line. Run by .ci/http.
import * as oauth from "oauth4webapi";

const { API, STACK, JWT, TOKEN } = process.env as Record<string, string>;
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(API);
const discovered = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(issuer, discovered);
const client: oauth.Client = { client_id: "api" };
const bearer: oauth.ClientAuth = (_server, _client, _body, headers) => {
  headers.set("authorization", `Bearer ${JWT}`);
};
const response = await oauth.introspectionRequest(server, client, bearer, TOKEN, {
  additionalParameters: { stack_api_key: STACK },
  ...insecure,
});
const answer = await oauth.processIntrospectionResponse(server, client, response);
console.log(answer.active, answer.scope ?? "", answer.sub ?? "", answer.aud ?? "");
