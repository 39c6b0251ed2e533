// Calls of the JavaScript SDK on the other resources of a stack: releases, publish settings,
// branches, webhooks, workflows, roles, tokens, and the stack itself.

const extensions = (stack, file) => [
  () => stack.extension().upload({ upload: file, title: "X", data_type: "text", type: "field" }),
  () => stack.extension().query({ query: { type: "widget" } }).find(),
  () => stack.extension("x").update(),
  () => stack.extension("x").fetch(),
  () => stack.extension("x").delete(),
];

const labels = (stack) => [
  () => stack.label().create({ label: { name: "L", content_types: [] } }),
  () => stack.label().query().find(),
  () => stack.label("l").fetch(),
  () => stack.label("l").update(),
  () => stack.label("l").delete(),
];

const locales = (stack) => [
  () => stack.locale().create({ locale: { code: "en-at" } }),
  () => stack.locale().query().find(),
  () => stack.locale("en-at").fetch(),
  () => stack.locale("en-at").update(),
  () => stack.locale("en-at").delete(),
];

const environments = (stack) => [
  () => stack.environment().create({ environment: { name: "development" } }),
  () => stack.environment().query().find(),
  () => stack.environment("development").fetch(),
  () => stack.environment("my env").fetch(),
  () => stack.environment("development").update(),
  () => stack.environment("development").delete(),
];

const releases = (stack) => {
  const release = stack.release("r1");
  const entry = { uid: "blt1", version: 1, locale: "en-us", content_type_uid: "blog" };
  const item = { ...entry, action: "publish" };
  const items = [item];
  const moved = { release_uid: "r2", items: [{ uid: "blt1", locale: "en-us" }] };
  return [
    () => stack.release().create({ release: { name: "R" } }),
    () => stack.release().query().find(),
    () => release.fetch(),
    () => release.update(),
    () => release.delete(),
    () => release.item().findAll(),
    () => release.item().create({ item }),
    () => release.item().create({ items }),
    () => release.item().delete({ item }),
    () => release.item().delete({ items }),
    () => release.item().move({ param: moved, release_version: "2.0" }),
    () => release.deploy({ environments: ["development"], locales: ["en-us"], action: "publish" }),
    () => release.clone({ name: "R2", description: "a copy" }),
  ];
};

const bulk = (stack) => {
  const operation = stack.bulkOperation();
  const details = { entries: [{ uid: "blt1", content_type: "blog", locale: "en-us" }] };
  const data = { items: [{ uid: "blt1", content_type: "blog", locale: "en-us" }] };
  const shown = {
    include_count: true,
    skip: 0,
    limit: 50,
    include_reference: true,
    status: "success",
    type: "entry",
    ct: "a",
  };
  return [
    () => operation.publish({ details }),
    () => operation.publish({ details, is_nested: true }),
    () => operation.publish({ details, publishAllLocalized: true }),
    () => operation.unpublish({ details }),
    () => operation.unpublish({ details, is_nested: true, unpublishAllLocalized: true }),
    () => operation.delete({ details }),
    () => operation.update({ workflow: { workflow_stage: { uid: "s" } } }),
    () => operation.addItems({ data }),
    () => operation.updateItems({ data }),
    () => operation.jobStatus({ job_id: "j1" }),
    () => operation.getJobItems("j1", shown),
  ];
};

const branches = (stack) => {
  const compared = () => stack.branch("b").compare("c");
  const merged = {
    base_branch: "main",
    compare_branch: "dev",
    default_merge_strategy: "merge_prefer_base",
    merge_comment: "x",
    no_revert: true,
  };
  return [
    () => stack.branch().create({ branch: { uid: "b", source: "main" } }),
    () => stack.branch().query().find(),
    () => stack.branch("b").fetch(),
    () => stack.branch("b").delete({ force: true }),
    () => stack.branch("b").updateSettings({ branch: { settings: { am_v2: {} } } }),
    () => compared().all(),
    () => compared().contentTypes(),
    () => compared().contentTypes({ uid: "blog" }),
    () => compared().globalFields(),
    () => compared().globalFields({ uid: "seo" }),
    () => stack.branch().merge({}, merged),
    () => stack.branch().mergeQueue().find(),
    () => stack.branch().mergeQueue("q1").fetch(),
    () => stack.branchAlias().fetchAll(),
    () => stack.branchAlias("al").createOrUpdate("main"),
    () => stack.branchAlias("al").fetch(),
    () => stack.branchAlias("al").delete(),
  ];
};

const webhooks = (stack, file) => [
  () => stack.webhook().create({ webhook: { name: "W" } }),
  () => stack.webhook().fetchAll(),
  () => stack.webhook().import({ webhook: file }),
  () => stack.webhook("w").import({ webhook: file }),
  () => stack.webhook("w").fetch(),
  () => stack.webhook("w").update(),
  () => stack.webhook("w").delete(),
  () => stack.webhook("w").executions({ skip: 0, limit: 10 }),
  () => stack.webhook("w").retry("w"),
];

const workflows = (stack) => {
  const workflow = stack.workflow("w");
  const wanted = { action: "publish", locale: "en-us", environment: "e" };
  return [
    () => stack.workflow().create({ workflow: { name: "W" } }),
    () => stack.workflow().fetchAll(),
    () => workflow.fetch(),
    () => workflow.update(),
    () => workflow.enable(),
    () => workflow.disable(),
    () => workflow.delete(),
    () => stack.workflow().contentType("blog").getPublishRules(wanted),
    () => stack.workflow().publishRule().create({ publishing_rule: { workflow: "w" } }),
    () => stack.workflow().publishRule().fetchAll(),
    () => stack.workflow().publishRule("p").fetch(),
    () => stack.workflow().publishRule("p").update(),
    () => stack.workflow().publishRule("p").delete(),
  ];
};

const logsAndRoles = (stack) => [
  () => stack.auditLog().fetchAll(),
  () => stack.auditLog("l").fetch(),
  () => stack.role().create({ role: { name: "R" } }),
  () => stack.role().fetchAll({ include_rules: true, include_permissions: true }),
  () => stack.role().query({ query: { name: "Developer" } }).find(),
  () => stack.role("r").fetch(),
  () => stack.role("r").update(),
  () => stack.role("r").delete(),
];

const tokens = (stack) => [
  () => stack.deliveryToken().create({ token: { name: "D" } }),
  () => stack.deliveryToken().create({ token: { name: "D" } }, { create_with_preview_token: true }),
  () => stack.deliveryToken().query().find(),
  () => stack.deliveryToken("d").fetch(),
  () => stack.deliveryToken("d").update(),
  () => stack.deliveryToken("d").delete(),
  () => stack.deliveryToken("d").previewToken().create(),
  () => stack.deliveryToken("d").previewToken().delete(),
  () => stack.managementToken().create({ token: { name: "M" } }),
  () => stack.managementToken().query().find(),
  () => stack.managementToken("m").fetch(),
  () => stack.managementToken("m").update(),
  () => stack.managementToken("m").delete(),
];

const variants = (stack) => {
  const group = stack.variantGroup("vg");
  return [
    () => stack.variantGroup().create({ variant_group: { name: "G" } }),
    () => stack.variantGroup().query().find(),
    () => group.update({ name: "G" }),
    () => group.delete(),
    () => group.variants().create({ variant: { name: "V" } }),
    () => group.variants().query().find(),
    () => group.variants("v").fetch(),
    () => group.variants("v").update({ name: "V" }),
    () => group.variants("v").delete(),
    () => stack.variants().create({ variant: { name: "V" } }),
    () => stack.variants().query().find(),
    () => stack.variants().fetchByUIDs(["a", "b"]),
    () => stack.variants("v").fetch(),
    () => stack.variants("v").delete(),
  ];
};

const itself = (stack) => {
  const everything = {
    include_collaborators: true,
    include_stack_variables: true,
    include_discrete_variables: true,
    include_count: true,
  };
  return [
    () => stack.fetch({ include_collaborators: false }),
    () => stack.fetch(),
    () => stack.fetch(everything),
    () => stack.update(),
    () => stack.delete(),
    () => stack.users(),
    () => stack.updateUsersRoles({ u: ["r"] }),
    () => stack.transferOwnership("someone@example.com"),
    () => stack.settings(),
    () => stack.resetSettings(),
    () => stack.addSettings({ a: "b" }),
    () => stack.share(["someone@example.com"], {}),
    () => stack.unShare("someone@example.com"),
  ];
};

/** Returns the calls on a stack; `file` is a small file to upload. */
export const stack = (stack, file) =>
  [
    extensions,
    labels,
    locales,
    environments,
    releases,
    bulk,
    branches,
    webhooks,
    workflows,
    logsAndRoles,
    tokens,
    variants,
    itself,
  ].flatMap((calls) => calls(stack, file));
