// Calls of the JavaScript SDK about sessions, accounts and the organization. Only a person may make
// these calls; a management token is always refused.

// Each call needs a new object, because an organization object keeps the first team that it was
// asked for.
const teams = (organization) => {
  const team = organization().teams("t");
  return [
    () => organization().teams().create({ name: "T" }),
    () => organization().teams().fetchAll(),
    () => team.fetch(),
    () => team.update({ name: "T" }),
    () => team.delete(),
    () => team.teamUsers().add({ emails: ["someone@example.com"] }),
    () => team.teamUsers().fetchAll(),
    () => team.teamUsers("u").remove(),
    () => team.stackRoleMappings().add({ stackApiKey: "k", roles: [] }),
    () => team.stackRoleMappings().fetchAll(),
    () => team.stackRoleMappings("k").update({ stackRoleMapping: { roles: [] } }),
    () => team.stackRoleMappings("k").delete(),
  ];
};

/** Returns the calls of a client outside of any stack. */
export const people = (client) => {
  const organization = () => client.organization("o1");
  return [
    () => client.stack().create({ stack: { name: "S" } }, { organization_uid: "o" }),
    () => client.login({ email: "someone@example.com", password: "-" }),
    () => client.logout(),
    () => client.getUser(),
    () => client.organization().fetchAll(),
    () => organization().fetch(),
    () => organization().stacks(),
    () => organization().transferOwnership("someone@example.com"),
    () => organization().addUser({ share: { users: {} } }),
    () => organization().getInvitations(),
    () => organization().resendInvitation("i1"),
    () => organization().roles(),
    ...teams(organization),
  ];
};
