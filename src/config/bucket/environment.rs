//! The variables and file entries that are read for a bucket. The list is complete, and none of
//! them names a bucket, a container or a place in one, or switches to another kind of server.

use super::{Problem, ProviderSettings, checked_endpoint};
use crate::config::{ConfigDetail, Environment};
use crate::store::object::{CredentialInputs, Kind};

/// A setting and its variables; the first variable that is set is taken.
type VariableRow = (&'static str, &'static [&'static str]);

/// Keys, tokens and roles are not here: [`CredentialInputs`] finds them.
const S3: &[VariableRow] = &[
    ("aws_endpoint_url_s3", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]),
    ("aws_region", &["AWS_REGION", "AWS_DEFAULT_REGION"]),
    ("ca_bundle", &["AWS_CA_BUNDLE"]),
    ("aws_server_side_encryption", &["AWS_SERVER_SIDE_ENCRYPTION"]),
    ("aws_sse_kms_key_id", &["AWS_SSE_KMS_KEY_ID"]),
    ("aws_sse_bucket_key_enabled", &["AWS_SSE_BUCKET_KEY_ENABLED"]),
    ("aws_sse_customer_key_base64", &["AWS_SSE_CUSTOMER_KEY_BASE64"]),
    ("aws_skip_signature", &["AWS_SKIP_SIGNATURE"]),
    ("aws_request_payer", &["AWS_REQUEST_PAYER"]),
    ("aws_unsigned_payload", &["AWS_UNSIGNED_PAYLOAD"]),
    ("aws_checksum_algorithm", &["AWS_CHECKSUM_ALGORITHM"]),
    ("aws_disable_bulk_delete", &["AWS_DISABLE_BULK_DELETE"]),
];

const GCS: &[VariableRow] = &[
    ("google_base_url", &["GOOGLE_BASE_URL"]),
    ("google_bearer_token", &["GOOGLE_BEARER_TOKEN"]),
    ("google_service_account", &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"]),
    ("google_service_account_key", &["GOOGLE_SERVICE_ACCOUNT_KEY"]),
    ("google_application_credentials", &["GOOGLE_APPLICATION_CREDENTIALS"]),
    ("google_skip_signature", &["GOOGLE_SKIP_SIGNATURE"]),
];

const AZURE: &[VariableRow] = &[
    ("azure_endpoint", &["AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"]),
    ("azure_storage_account_name", &["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"]),
    (
        "azure_storage_account_key",
        &["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_KEY"],
    ),
    ("azure_storage_sas_token", &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]),
    ("azure_storage_token", &["AZURE_STORAGE_TOKEN"]),
    ("azure_client_id", &["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"]),
    ("azure_client_secret", &["AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET"]),
    (
        "azure_tenant_id",
        &["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID", "AZURE_AUTHORITY_ID", "AZURE_STORAGE_AUTHORITY_ID"],
    ),
    ("azure_authority_host", &["AZURE_AUTHORITY_HOST", "AZURE_STORAGE_AUTHORITY_HOST"]),
    ("azure_msi_endpoint", &["AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT"]),
    ("azure_object_id", &["AZURE_OBJECT_ID"]),
    ("azure_msi_resource_id", &["AZURE_MSI_RESOURCE_ID"]),
    ("azure_federated_token_file", &["AZURE_FEDERATED_TOKEN_FILE"]),
    ("azure_use_azure_cli", &["AZURE_USE_AZURE_CLI"]),
    ("azure_credential_type", &["AZURE_CREDENTIAL_TYPE"]),
    ("azure_skip_signature", &["AZURE_SKIP_SIGNATURE"]),
    ("azure_storage_encryption_key", &["AZURE_STORAGE_ENCRYPTION_KEY"]),
];

/// A bucket's settings from the environment and the files.
pub(super) fn settings(
    kind: Kind,
    environment: &Environment,
    identity: &CredentialInputs,
) -> Result<ProviderSettings, Problem> {
    match kind {
        Kind::S3 => s3(environment, identity),
        Kind::Gcs => gcs(environment),
        Kind::Azure => azure(environment),
    }
}

fn s3(environment: &Environment, identity: &CredentialInputs) -> Result<ProviderSettings, Problem> {
    let mut found = listed(S3, environment)?;
    let lines = match identity.profile_lines() {
        Ok(lines) => lines,
        Err(failure) if identity.is_named() => {
            return Err((failure.what, failure.problem.map(|problem| ConfigDetail::Bucket(Kind::S3, problem))));
        }
        // The credentials may come from elsewhere.
        Err(_) => return Ok(found),
    };
    let of_files = [("aws_region", "region"), ("aws_endpoint_url_s3", "endpoint_url"), ("ca_bundle", "ca_bundle")];
    for (setting, name) in of_files {
        if let Some(value) = lines.get(name).filter(|_| !has(&found, setting)) {
            checked(&format!("{name} of the AWS profile"), setting, value)?;
            found.push((setting.to_owned(), value.clone()));
        }
    }
    Ok(found)
}

/// Takes one of the two ways to name a service account: the builder refuses both together.
fn gcs(environment: &Environment) -> Result<ProviderSettings, Problem> {
    let mut found = listed(GCS, environment)?;
    if has(&found, "google_service_account") {
        found.retain(|(name, _)| name != "google_service_account_key");
    }
    let get = |wanted: &str| found.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let file = get("google_service_account").and_then(|path| std::fs::read_to_string(path).ok());
    let account = match (&file, get("google_service_account_key")) {
        (Some(text), _) => serde_json::from_str(text).unwrap_or_default(),
        (None, Some(key)) => serde_json::from_str::<serde_json::Value>(key)
            .ok()
            .filter(serde_json::Value::is_object)
            .ok_or_else(|| ("GOOGLE_SERVICE_ACCOUNT_KEY is not a JSON object".to_owned(), None))?,
        (None, None) => serde_json::Value::Null,
    };
    if let Some(url) = account.get("gcs_base_url").and_then(serde_json::Value::as_str)
        && !has(&found, "google_base_url")
    {
        checked("gcs_base_url of the service account", "google_base_url", url)?;
        found.push(("google_base_url".to_owned(), url.to_owned()));
    }
    Ok(found)
}

/// A connection string comes before the variables for single settings, as in Azure's own tools, and
/// is not combined with them.
fn azure(environment: &Environment) -> Result<ProviderSettings, Problem> {
    let mut found = listed(AZURE, environment)?;
    let Some(text) = variable(environment, "AZURE_STORAGE_CONNECTION_STRING")? else { return Ok(found) };
    let of_string = connection_string(&text)?;
    let replaced = [
        "azure_endpoint",
        "azure_storage_account_name",
        "azure_storage_account_key",
        "azure_storage_sas_token",
        "azure_storage_token",
    ];
    found.retain(|(name, _)| !replaced.contains(&name.as_str()));
    found.extend(of_string);
    Ok(found)
}

/// `AccountName=…;AccountKey=…;…` (Microsoft Learn, Configure Azure Storage connection strings).
fn connection_string(text: &str) -> Result<ProviderSettings, Problem> {
    const NAME: &str = "AZURE_STORAGE_CONNECTION_STRING";
    let parts = text.split(';').filter_map(|part| part.split_once('='));
    let parts: Vec<(String, &str)> =
        parts.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim())).collect();
    let get = |wanted: &str| parts.iter().find(|(name, _)| name == wanted).map(|(_, value)| (*value).to_owned());
    if get("usedevelopmentstorage").is_some() {
        return Err((format!("{NAME} names the emulator, and not where it is"), Some(ConfigDetail::Emulator)));
    }
    let endpoint = get("blobendpoint").map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    let host = || endpoint.as_deref()?.split_once("://")?.1.split(['.', '/', ':']).next().map(str::to_owned);
    let Some(account) = get("accountname").or_else(host).filter(|account| !account.is_empty()) else {
        return Err((format!("{NAME} has no AccountName"), None));
    };
    let by_parts = || {
        let (protocol, suffix) = (get("defaultendpointsprotocol")?, get("endpointsuffix"));
        Some(format!("{protocol}://{account}.blob.{}", suffix.as_deref().unwrap_or("core.windows.net")))
    };
    let endpoint = endpoint.clone().or_else(by_parts);
    if let Some(endpoint) = &endpoint {
        checked(NAME, "azure_endpoint", endpoint)?;
    }
    let rows = [
        ("azure_endpoint", endpoint),
        ("azure_storage_account_name", Some(account.clone())),
        ("azure_storage_account_key", get("accountkey")),
        ("azure_storage_sas_token", get("sharedaccesssignature")),
    ];
    Ok(rows.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn has(settings: &ProviderSettings, name: &str) -> bool {
    settings.iter().any(|(set, _)| set == name)
}

fn listed(rows: &[VariableRow], environment: &Environment) -> Result<ProviderSettings, Problem> {
    let mut found = Vec::new();
    for (setting, variables) in rows {
        for name in *variables {
            if let Some(value) = variable(environment, name)? {
                checked(name, setting, &value)?;
                found.push(((*setting).to_owned(), value));
                break;
            }
        }
    }
    Ok(found)
}

/// A variable, without the white space that an editor or a `$(cat file)` leaves.
fn variable(environment: &Environment, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = environment.var(name) else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| (format!("{name} is not UTF-8"), None))?;
    let value = value.trim_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

/// Refuses a value that cannot be sent: object_store treats an invalid header as a bug and panics.
fn checked(name: &str, setting: &str, value: &str) -> Result<(), Problem> {
    let free = ["google_service_account_key", "google_service_account", "google_application_credentials", "ca_bundle"];
    if !free.contains(&setting) && !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err((format!("{name} has a character that it cannot have"), None));
    }
    if ["aws_endpoint_url_s3", "google_base_url", "azure_endpoint"].contains(&setting) {
        let detail = ConfigDetail::EndpointVariable { name: name.to_owned() };
        checked_endpoint(value).map_err(|what| (format!("{name} {what}"), Some(detail)))?;
    }
    Ok(())
}
