//! The built-in actions. The API contract promises every row.

use std::borrow::Cow;

use super::{
    action::{Action, ActionAccess, Fact, Rule},
    module::{BuiltinModule, Module},
};

use ActionAccess::{Read, Write};
use Rule::{Conditional, Grantable, Never};

pub(super) const NO_APPROVERS: Rule = Conditional(Fact {
    name: Cow::Borrowed("has_approvers"),
    value: false,
});
const BRANCH_BOUND: &[BuiltinModule] = &[
    BuiltinModule::Entry,
    BuiltinModule::Asset,
    BuiltinModule::ContentType,
    BuiltinModule::GlobalField,
    BuiltinModule::Label,
    BuiltinModule::Extension,
];

macro_rules! actions {
    ($($module:ident $($name:literal $access:ident $rule:ident),+;)+) => {
        &[$($(Action {
            name: Cow::Borrowed($name),
            module: Module::Builtin(BuiltinModule::$module),
            access: $access,
            rule: $rule,
            branch_bound: is_branch_bound(BuiltinModule::$module),
        },)+)+]
    };
}

/// All built-in actions, in the order of the catalogue.
pub const ACTIONS: &[Action] = actions! {
    Entry "entry.read" Read Grantable, "entry.create" Write Grantable, "entry.update" Write Grantable, "entry.delete" Write Grantable,
        "entry.publish" Write Grantable, "entry.unpublish" Write Grantable;
    Asset "asset.read" Read Grantable, "asset.create" Write Grantable, "asset.update" Write Grantable, "asset.delete" Write Grantable,
        "asset.publish" Write Grantable, "asset.unpublish" Write Grantable;
    ContentType "content_type.read" Read Grantable, "content_type.create" Write Grantable, "content_type.update" Write Grantable, "content_type.delete" Write Grantable;
    GlobalField "global_field.read" Read Grantable, "global_field.create" Write Grantable, "global_field.update" Write Grantable, "global_field.delete" Write Grantable;
    Label "label.read" Read Grantable, "label.create" Write Grantable, "label.update" Write Grantable, "label.delete" Write Grantable;
    Extension "extension.read" Read Grantable, "extension.create" Write Grantable, "extension.update" Write Grantable, "extension.delete" Write Grantable;
    Taxonomy "taxonomy.read" Read Grantable, "taxonomy.create" Write Grantable, "taxonomy.update" Write Grantable, "taxonomy.delete" Write Grantable,
        "taxonomy.publish" Write Grantable, "taxonomy.unpublish" Write Grantable;
    Variant "variant.read" Read Grantable, "variant.create" Write Grantable, "variant.update" Write Grantable, "variant.delete" Write Grantable;
    Release "release.read" Read Grantable, "release.create" Write Grantable, "release.update" Write Grantable, "release.delete" Write Grantable,
        "release.deploy" Write Grantable;
    Environment "environment.read" Read Grantable, "environment.create" Write Grantable, "environment.update" Write Grantable, "environment.delete" Write Grantable;
    Locale "locale.read" Read Grantable, "locale.create" Write Grantable, "locale.update" Write Grantable, "locale.delete" Write Grantable;
    Webhook "webhook.read" Read Grantable, "webhook.create" Write Grantable, "webhook.update" Write Grantable, "webhook.delete" Write Grantable;
    Role "role.read" Read Grantable, "role.create" Write Grantable, "role.update" Write Grantable, "role.delete" Write Grantable;
    StackUser "stack_user.read" Read Grantable, "stack_user.invite" Write Never, "stack_user.remove" Write Never;
    Workflow "workflow.read" Read Grantable, "workflow.create" Write Grantable, "workflow.update" Write Grantable, "workflow.delete" Write Grantable,
        "workflow.change_stage" Write Never;
    PublishRule "publish_rule.read" Read Grantable, "publish_rule.create" Write NO_APPROVERS, "publish_rule.update" Write NO_APPROVERS, "publish_rule.delete" Write Grantable;
    PublishRequest "publish_request.read" Read Grantable, "publish_request.accept" Write Never, "publish_request.reject" Write Never;
    PublishQueue "publish_queue.read" Read Grantable, "publish_queue.unschedule" Write Grantable;
    AuditLog "audit_log.read" Read Grantable;
    Branch "branch.read" Read Grantable, "branch.create" Write Never, "branch.update" Write Never, "branch.delete" Write Never;
    BranchAlias "branch_alias.read" Read Grantable, "branch_alias.create" Write Never, "branch_alias.update" Write Never, "branch_alias.delete" Write Never;
    Token "token.read" Read Never, "token.create" Write Never, "token.update" Write Never, "token.delete" Write Never;
    Stack "stack.read" Read Grantable, "stack.read_credentials" Read Never, "stack.update" Write Never, "stack.delete" Write Never, "stack.transfer" Write Never;
    Organization "organization.read" Read Never, "organization.update" Write Never;
    UserSession "user_session.create" Write Never, "user_session.delete" Write Never;
    App "app.read" Read Grantable, "app.install" Write Never;
};

/// Returns whether the built-in actions of a module are bound to branches.
pub(super) const fn is_branch_bound(module: BuiltinModule) -> bool {
    let mut index = 0;
    while index < BRANCH_BOUND.len() {
        if BRANCH_BOUND[index] as u8 == module as u8 {
            return true;
        }
        index += 1;
    }
    false
}
