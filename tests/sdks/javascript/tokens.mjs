// Manages tokens with the JavaScript SDK. The JWT on standard input is the credential. Prints one
// JSON object with what the SDK returned.
//
//   API=127.0.0.1:8466 STACK=blt… node tokens.mjs < JWT

import { authorization, connect, key } from "./sdk.mjs";

const stack = connect({ authorization: undefined, authtoken: authorization }).stack({ api_key: key });
const all = () => stack.managementToken().query({ include_count: true }).find();
const failed = (call) => call().then(() => null, ({ status, errorCode, errors }) => ({ status, errorCode, errors }));

const token = {
  name: "JavaScript SDK",
  description: "made by a test",
  scope: [
    { module: "content_type", acl: { read: true, write: true } },
    { module: "branch", branches: ["main"], acl: { read: true } },
  ],
  expires_on: "2120-12-10",
  is_email_notification_enabled: false,
};

const created = await stack.managementToken().create({ token });
const { uid } = created;
const secret = created.token;
const listed = await all();
// The object that create returned contains the secret, and update sends the whole object.
created.name = "JavaScript SDK, renamed";
const renamed = await created.update();
const fetched = await stack.managementToken(uid).fetch();
fetched.scope = [{ module: "$all", acl: { read: true } }];
fetched.expires_on = null;
const widened = await fetched.update();
const taken = await failed(() => stack.managementToken().create({ token: { ...token, name: renamed.name } }));
const mailed = await failed(() => stack.managementToken().create({ token: { ...token, is_email_notification_enabled: true } }));
const deleted = await stack.managementToken(uid).delete();
const after = await all();
const gone = await failed(() => stack.managementToken(uid).fetch());

console.log(
  JSON.stringify({
    uid,
    secret,
    listed: listed.items.map(({ name }) => name),
    count: listed.count,
    renamed: renamed.name,
    widened: [widened.scope, widened.expires_on],
    taken,
    mailed,
    deleted: typeof deleted.notice,
    after: after.items.length,
    gone,
  }),
);
