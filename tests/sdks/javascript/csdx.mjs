// The vendor's command line with only its plugins for export and import. Reads a management token
// from standard input and gives it the alias `token`.
//
//   API=cms.test:8443 STACK=blt… node csdx.mjs cm:stacks:export --alias token … < TOKEN

import "./resolve.mjs";
import { readFileSync } from "node:fs";
import utilities from "@contentstack/cli-utilities";
import { execute } from "@oclif/core";

const { configHandler } = utilities;
const api = `https://${process.env.API}`;
const urls = { cma: api, cda: api, uiHost: api, developerHubUrl: api, personalizeUrl: api };
configHandler.set("region", { name: "CMS", ...urls, launchHubUrl: api, composableStudioUrl: api });
const token = readFileSync(0, "utf8").trim();
configHandler.set("tokens.token", { token, apiKey: process.env.STACK, type: "management" });
await execute({ dir: import.meta.url });
