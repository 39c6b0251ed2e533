//! Parses the key `required` of an `[[issuers]]` entry. Its value has one of two forms: a table,
//! whose keys are names of top-level claims, or a list of paths, which can also reach nested
//! claims. The keys of the table are not split at dots, because names of claims can contain dots
//! (`https://example.com/roles`).

use toml::{Table, Value};

use super::{
    entry::{Entry, IssuersError},
    issuers::RequiredClaim,
};

const REQUIRED: &str = "required";
/// Maximum number of names in a path.
const DEEPEST: usize = 8;

impl Entry<'_> {
    /// Parses `required`. If the key is absent, there are no required claims.
    pub fn required(&self) -> Result<Vec<RequiredClaim>, IssuersError> {
        match self.get(REQUIRED) {
            None => Ok(Vec::new()),
            Some(Value::Table(claims)) if !claims.is_empty() => {
                let claims = claims.iter();
                claims
                    .map(|(claim, value)| self.required_at_top(claim, value))
                    .collect()
            }
            Some(Value::Array(items)) if !items.is_empty() => {
                let numbered = items.iter().zip(1..);
                numbered
                    .map(|(item, number)| self.required_at_path(number, item))
                    .collect()
            }
            Some(_) => Err(self.fault(
                REQUIRED,
                "must hold claims, as in { groups = \"cms-operators\" } or \
                 [{ path = [\"realm_access\", \"roles\"], value = \"cms-operators\" }]",
            )),
        }
    }

    fn required_at_top(&self, claim: &str, value: &Value) -> Result<RequiredClaim, IssuersError> {
        let wrong = || {
            let problem = format!(
                "gives `{claim}` no plain value: use one text, or for a claim inside it \
                 [{{ path = [{claim:?}, \"...\"], value = \"...\" }}]"
            );
            self.fault(REQUIRED, &problem)
        };
        Ok(RequiredClaim {
            path: vec![claim.to_owned()],
            value: plain(value).ok_or_else(wrong)?,
        })
    }

    fn required_at_path(&self, number: usize, item: &Value) -> Result<RequiredClaim, IssuersError> {
        let wrong = |problem: &str| self.fault(REQUIRED, &format!("item {number} {problem}"));
        let Value::Table(item) = item else {
            return Err(wrong(
                "is not a table: write { path = [\"realm_access\", \"roles\"], value = \"cms-operators\" }",
            ));
        };
        if let Some(key) = item
            .keys()
            .find(|key| !["path", "value"].contains(&key.as_str()))
        {
            return Err(wrong(&format!(
                "has the unknown key `{key}`: the keys are path, value"
            )));
        }
        let path = path(item).ok_or_else(|| {
            wrong(
                "needs a `path` of 1 to 8 names, one for each level, as in [\"realm_access\", \"roles\"]",
            )
        })?;
        let value = item.get("value").and_then(plain);
        let value = value.ok_or_else(|| wrong("needs a `value`: use one string"))?;
        Ok(RequiredClaim { path, value })
    }
}

fn path(item: &Table) -> Option<Vec<String>> {
    let names = item.get("path")?.as_array()?;
    let names: Vec<_> = names.iter().map(Value::as_str).collect::<Option<_>>()?;
    let fits = (1..=DEEPEST).contains(&names.len()) && !names.contains(&"");
    fits.then(|| names.into_iter().map(str::to_owned).collect())
}

/// Returns a required value as text for the comparison with the claim, or `None` for a type that
/// cannot be compared.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Boolean(_) | Value::Integer(_) => Some(value.to_string()),
        _ => None,
    }
}
