// Calls of the JavaScript SDK on content. There is one for each request that the SDK can send about
// the types, entries, assets, fields and taxonomies of a stack.

const publishDetails = { locales: ["en-us"], environments: ["development"] };

const contentTypes = (stack, file) => {
  const type = stack.contentType("blog");
  return [
    () => stack.contentType().create({ content_type: { title: "Blog", uid: "blog", schema: [] } }),
    () => stack.contentType().query({ include_count: true }).find(),
    () => stack.contentType().query().count(),
    () => stack.contentType().query().findOne(),
    () => stack.contentType().query({ query: { title: { $in: ["a b", "c"] } } }).find(),
    () => stack.contentType().import({ content_type: file }),
    () => stack.contentType().import({ content_type: file }, { overwrite: true }),
    () => type.update(),
    () => type.fetch(),
    () => type.fetch({ include_global_field_schema: true, include_branch: true }),
    () => type.references(),
    () => type.delete(),
  ];
};

const entries = (stack, file) => {
  const type = stack.contentType("blog");
  const entry = type.entry("blt1");
  const filter = { $and: [{ title: "welcome to X" }, { tags: { $in: ["ü"] } }] };
  const page = { skip: 0, limit: 100, asc: "updated_at", query: filter };
  const all = { include_workflow: true, include_publish_details: true, locale: "en-us" };
  const one = {
    version: 2,
    locale: "en-at",
    include_publish_details: true,
    include_taxonomies: true,
  };
  return [
    () => type.entry().create({ entry: { title: "Home" } }),
    () => type.entry().create({ entry: { title: "Home" } }, { locale: "en-at" }),
    () => type.entry().query(all).find(),
    () => type.entry().query(page).find(),
    () => type.entry().query().count(),
    () => type.entry().query().findOne(),
    () => type.entry().import({ entry: file, locale: "en-us", overwrite: true }),
    () => entry.import({ entry: file, locale: "en-us", overwrite: true }),
    () => entry.update(),
    () => entry.update({ locale: "en-at" }),
    () => entry.fetch(),
    () => entry.fetch(one),
    () => entry.delete(),
    () => entry.delete({ locale: "en-at" }),
    () => entry.publish({ publishDetails, locale: "en-us" }),
    () => entry.unpublish({ publishDetails, locale: "en-us" }),
    () => entry.publishRequest({ publishing_rule: { uid: "p" }, locale: "en-us" }),
    () => entry.setWorkflowStage({ workflow_stage: { uid: "s" }, locale: "en-us" }),
    () => entry.locales(),
    () => entry.references(),
    () => entry.references({ locale: "en-us" }),
    () => entry.includeVariants({ include_variant: true, variants_uid: "v" }),
  ];
};

const entryVariants = (stack) => {
  const entry = stack.contentType("blog").entry("blt1");
  return [
    () => entry.variants().query().find(),
    () => entry.variants("v").update({ entry: { title: "Home" } }),
    () => entry.variants("v").fetch(),
    () => entry.variants("v").versions(),
    () => entry.variants("v").delete(),
  ];
};

const assets = (stack, file) => {
  const asset = stack.asset("blt2");
  const folder = stack.asset().folder("f1");
  const folders = { include_folders: true, query: { is_dir: true, name: "My Folder" } };
  return [
    () => stack.asset().create({ upload: file, title: "Picture" }),
    () => stack.asset().query({ folder: "blt3", include_folders: true, desc: "created_at" }).find(),
    () => stack.asset().query().count(),
    () => stack.asset().query(folders).find(),
    () => asset.update(),
    () => asset.replace({ upload: file }),
    () => asset.fetch({ version: 1, include_path: true }),
    () => asset.delete(),
    () => asset.publish({ publishDetails }),
    () => asset.unpublish({ publishDetails }),
    () => asset.getReferences(),
    () => stack.asset().folder().create({ asset: { name: "Folder" } }),
    () => folder.fetch(),
    () => folder.update(),
    () => folder.delete(),
  ];
};

const globalFields = (stack, file) => {
  const nested = {
    include_global_fields: true,
    include_content_types: true,
    include_validation_keys: true,
  };
  return [
    () => stack.globalField().create({ global_field: { title: "SEO", uid: "seo", schema: [] } }),
    () => stack.globalField().query().find(),
    () => stack.globalField({ api_version: "3.2" }).query(nested).find(),
    () => stack.globalField().import({ global_field: file }),
    () => stack.globalField().import({ global_field: file }, { overwrite: true }),
    () => stack.globalField("seo").update(),
    () => stack.globalField("seo").fetch(),
    () => stack.globalField("seo").delete(),
    () => stack.globalField("seo").delete({ force: true }),
  ];
};

const taxonomies = (stack, file) => {
  const taxonomy = stack.taxonomy("tax");
  const items = { locales: ["en-us"], environments: ["development"], items: [{ uid: "tax" }] };
  return [
    () => stack.taxonomy().create({ taxonomy: { name: "Color", uid: "tax" } }),
    () => stack.taxonomy().query().find(),
    () => stack.taxonomy().import({ taxonomy: file }),
    () => stack.taxonomy().publish(items, "3.2"),
    () => stack.taxonomy().unpublish(items, "3.2"),
    () => taxonomy.fetch(),
    () => taxonomy.update(),
    () => taxonomy.delete(),
    () => taxonomy.export(),
    () => taxonomy.locales(),
    () => taxonomy.localize({ taxonomy: { name: "Farbe" } }, { locale: "hi-in" }),
  ];
};

const terms = (stack) => {
  const term = stack.taxonomy("tax").terms("x");
  return [
    () => stack.taxonomy("tax").terms().create({ term: { name: "Red", uid: "x" } }),
    () => stack.taxonomy("tax").terms().query({ depth: 2 }).find(),
    () => stack.taxonomy("tax").terms().search("abc"),
    () => term.fetch(),
    () => term.update(),
    () => term.delete(),
    () => term.ancestors(),
    () => term.descendants(),
    () => term.move({ term: { parent_uid: "p", order: 1 }, force: true }),
    () => term.locales(),
    () => term.localize({ term: { name: "Rot" } }, { locale: "hi-in" }),
  ];
};

/** Returns the calls on a stack; `file` is a small file to upload. */
export const content = (stack, file) =>
  [contentTypes, entries, entryVariants, assets, globalFields, taxonomies, terms].flatMap((calls) =>
    calls(stack, file),
  );
