#!/usr/bin/env bash
# What cluster.yaml needs in an AWS account, made once with the AWS command line tool; prints the ids for its REPLACE lines.
#
#   bash deploy/aws/prepare.sh VPC_ID MY_ADDRESS/32 BUCKET
#
# A security group that lets in SSH from MY_ADDRESS and everything between its own members, and two roles: the head starts
# and ends nodes of this cluster, head and nodes read and write BUCKET. Nothing else is allowed, to anyone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
[ $# = 3 ] || { sed -n '2,4p' "$(basename "${BASH_SOURCE[0]}")" >&2; exit 2; }
vpc="$1" address="$2" bucket="$3"
account="$(aws sts get-caller-identity --query Account --output text)"

group="$(aws ec2 create-security-group --vpc-id "$vpc" --group-name iql-ray --description "iql-ray cluster" \
    --query GroupId --output text)"
aws ec2 authorize-security-group-ingress --group-id "$group" --protocol tcp --port 22 --cidr "$address" >/dev/null
aws ec2 authorize-security-group-ingress --group-id "$group" --protocol all --source-group "$group" >/dev/null

filled() { sed -e "s/000000000000/$account/g" -e "s/replace-with-bucket/$bucket/g" "$1"; }
for node in head worker; do
    aws iam create-role --role-name "iql-ray-$node" --assume-role-policy-document "$(cat trust.json)" >/dev/null
    aws iam put-role-policy --role-name "iql-ray-$node" --policy-name storage --policy-document "$(filled worker_policy.json)"
    aws iam create-instance-profile --instance-profile-name "iql-ray-$node" >/dev/null
    aws iam add-role-to-instance-profile --instance-profile-name "iql-ray-$node" --role-name "iql-ray-$node"
done
aws iam put-role-policy --role-name iql-ray-head --policy-name nodes --policy-document "$(filled head_policy.json)"

echo "SecurityGroupIds: [$group]"
echo "arn:aws:iam::$account:instance-profile/iql-ray-head"
echo "arn:aws:iam::$account:instance-profile/iql-ray-worker"
